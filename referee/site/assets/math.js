// Formulas: sets what pymdownx.arithmatex marked, \(…\) and \[…\], with KaTeX, which pages that have any load first.
// Without JavaScript, or where KaTeX could not be had, they stay readable as TeX.
if (window.katex) {
  for (const formula of document.querySelectorAll(".arithmatex")) {
    const parts = formula.textContent.match(/^\s*\\([([])([^]*)\\[)\]]\s*$/);
    if (!parts) continue;
    const options = { throwOnError: false, errorColor: "var(--bad)", strict: "ignore", maxExpand: 200 };
    katex.render(parts[2], formula, { displayMode: parts[1] === "[", ...options });
  }
}
