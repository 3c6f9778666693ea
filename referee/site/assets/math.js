// Formulas: sets what pymdownx.arithmatex marked, \(…\) and \[…\], with the KaTeX that lies beside this script.
// Without JavaScript, or where KaTeX could not be had, they stay readable as TeX.
(() => {
  const beside = document.currentScript.src.replace(/[^/]*$/, "katex/");
  const formulas = [...document.querySelectorAll(".arithmatex")];
  if (!formulas.length) return;

  const set = () => {
    for (const formula of formulas) {
      const parts = formula.textContent.match(/^\s*\\([([])([^]*)\\[)\]]\s*$/);
      if (!parts) continue;
      const options = { displayMode: parts[1] === "[", throwOnError: false, strict: "ignore", maxExpand: 200 };
      window.katex.render(parts[2], formula, options);
    }
  };
  const style = document.createElement("link");
  style.rel = "stylesheet";
  style.href = `${beside}katex.min.css`;
  const script = document.createElement("script");
  script.src = `${beside}katex.min.js`;
  script.onload = set;
  document.head.append(style, script);
})();
