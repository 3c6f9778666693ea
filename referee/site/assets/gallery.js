/* The home page's filters: shows the projects that match, in the order asked for, and keeps what was asked in the
   address, so that it can be linked to. Without this script all projects are shown. A plain script, not a module: browsers
   load no modules from a folder on disk. It stands before the gallery, so that an address that asks for some projects
   does not show all of them first, and then jump. */
if (location.search) document.documentElement.classList.add("asked");
addEventListener("DOMContentLoaded", () => {
  const form = document.getElementById("filters");
  const list = document.getElementById("projects");
  if (!form || !list) return;
  const found = document.getElementById("found");
  const clear = document.getElementById("clear");
  const nothing = document.getElementById("nothing");
  const facets = ["family", "data", "verdict", "stage", "year"];
  const fields = ["q", ...facets, "sort"];
  const plain = (text) => text.normalize("NFD").replace(/\p{Diacritic}/gu, "").toLowerCase();

  // Read once; a key pressed then touches only cards that come or go.
  const cards = [...list.children].map((card) => ({
    card, shown: true, words: plain(card.dataset.words), title: card.dataset.title,
    year: Number(card.dataset.year), held: Number(card.dataset.held), ran: card.dataset.ran,
    has: Object.fromEntries(facets.map((f) => [f, new Set(card.dataset[f].split(" ").filter(Boolean))])),
  }));
  const letters = new Intl.Collator(undefined, { numeric: true });
  const orders = {
    title: (a, b) => letters.compare(a.title, b.title),
    newest: (a, b) => b.year - a.year,
    oldest: (a, b) => a.year - b.year,
    held: (a, b) => b.held - a.held,
    ran: (a, b) => (a.ran < b.ran ? 1 : a.ran > b.ran ? -1 : 0),
  };
  let order = "";

  function apply() {
    const asked = Object.fromEntries(fields.map((f) => [f, form.elements[f].value]));
    const words = plain(asked.q).split(/\s+/).filter(Boolean);
    const set = facets.filter((f) => asked[f]);
    let n = 0;
    for (const c of cards) {
      const show = words.every((w) => c.words.includes(w)) && set.every((f) => c.has[f].has(asked[f]));
      n += show;
      if (show !== c.shown) c.card.hidden = !(c.shown = show);
    }
    if (asked.sort !== order) {
      order = asked.sort;
      const compare = orders[order];
      const sorted = compare ? [...cards].sort(compare) : cards;
      list.append(...sorted.map((c) => c.card));
    }
    const all = n === cards.length && !words.length && !set.length;
    found.textContent = all ? `${n} project${n === 1 ? "" : "s"}` : `${n} of ${cards.length} projects`;
    clear.hidden = all;
    nothing.hidden = n > 0 || cards.length === 0;
    for (const f of fields) form.elements[f].toggleAttribute("data-set", Boolean(asked[f].trim()));
    return asked;
  }

  function remember(asked) {
    const query = new URLSearchParams(fields.filter((f) => asked[f].trim()).map((f) => [f, asked[f].trim()])).toString();
    const address = `${location.pathname}${query ? `?${query}` : ""}${location.hash}`;
    try { history.replaceState(history.state, "", address); } catch { /* a browser that keeps addresses of files as they are */ }
  }

  function read() {
    const query = new URLSearchParams(location.search);
    for (const f of fields) {
      const field = form.elements[f], value = query.get(f) ?? "";
      field.value = value;
      if (field.value !== value && f !== "q") field.value = "";  // no such choice
    }
    apply();
  }

  form.addEventListener("input", () => remember(apply()));
  form.addEventListener("submit", (event) => event.preventDefault());
  clear.addEventListener("click", () => {
    for (const f of fields) if (f !== "sort") form.elements[f].value = "";
    remember(apply());
    form.elements.q.focus();
  });
  addEventListener("popstate", read);
  read();
  document.documentElement.classList.remove("asked");
});
