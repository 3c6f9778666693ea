/* Tables with the attribute data-sortable are sorted by pressing a column's head. Without this script they stay in the
   order they came in. A plain script, not a module: browsers load no modules from a folder on disk. */
(() => {
  const number = (cell) => (cell.dataset.value === undefined ? NaN : Number(cell.dataset.value));

  function sort(table, column, numeric, up) {
    const rows = [...table.tBodies[0].rows].map((row) => ({ row, cell: row.cells[column] }));
    const compare = numeric
      ? (a, b) => {
          const x = number(a.cell), y = number(b.cell);
          if (isNaN(x) || isNaN(y)) return isNaN(x) - isNaN(y);  // what has no value stands last, either way
          return up ? x - y : y - x;
        }
      : (a, b) => (up ? 1 : -1) * a.cell.textContent.trim().localeCompare(b.cell.textContent.trim(), undefined, { numeric: true });
    rows.sort(compare);
    table.tBodies[0].append(...rows.map((r) => r.row));
  }

  for (const table of document.querySelectorAll("table[data-sortable]")) {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const up = head.getAttribute("aria-sort") !== "ascending";
        for (const other of heads) other.removeAttribute("aria-sort");
        head.setAttribute("aria-sort", up ? "ascending" : "descending");
        sort(table, column, head.dataset.sort === "number", up);
      });
    });
  }
})();
