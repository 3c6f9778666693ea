// Learning curves: a slider over the training steps tells every line's value there; the pointer moves it, too.
// Without JavaScript the values at the end stand there, and the slider cannot be moved.
(() => {
  for (const figure of document.querySelectorAll("figure.curves")) {
    const lines = JSON.parse(figure.dataset.lines);
    const steps = [...new Set(lines.flatMap((line) => line.x))].sort((a, b) => a - b);
    const slider = figure.querySelector("input");
    const said = figure.querySelector("output");
    const values = [...figure.querySelectorAll(".reading b")];
    const charts = [...figure.querySelectorAll("svg.chart")].map((svg) => {
      // Where the steps are in the picture: each point of a line is a step.
      const places = new Map();
      svg.querySelectorAll("polyline").forEach((line, i) =>
        line.getAttribute("points").split(" ").forEach((point, j) => places.set(lines[i].x[j], parseFloat(point))));
      const cursor = document.createElementNS("http://www.w3.org/2000/svg", "line");
      const frame = svg.querySelector("clipPath rect");
      const top = Number(frame.getAttribute("y"));
      cursor.setAttribute("class", "cursor");
      cursor.setAttribute("y1", top);
      cursor.setAttribute("y2", top + Number(frame.getAttribute("height")));
      cursor.style.visibility = "hidden";
      svg.append(cursor);
      return { svg, places, cursor };
    });

    const number = (value) => {
      const places = value ? Math.min(9, Math.max(0, 4 - Math.floor(Math.log10(Math.abs(value))))) : 0;
      return value.toLocaleString("en", { minimumFractionDigits: places, maximumFractionDigits: places }).replace("-", "−");
    };
    const at = (line, step) => {
      let found = 0;
      while (found + 1 < line.x.length && line.x[found + 1] <= step) found += 1;
      return line.x[0] <= step ? number(line.y[found]) : "–";
    };
    const show = (index, moved) => {
      const step = steps[index];
      const text = step.toLocaleString("en");
      slider.value = index;
      slider.setAttribute("aria-valuetext", `step ${text}: ${lines.map((line, i) => `${values[i].dataset.name} ${at(line, step)}`).join(", ")}`);
      said.textContent = text;
      lines.forEach((line, i) => { values[i].textContent = at(line, step); });
      for (const { places, cursor } of charts) {
        cursor.setAttribute("x1", places.get(step));
        cursor.setAttribute("x2", places.get(step));
        if (moved) cursor.style.visibility = "visible";
      }
    };

    slider.max = steps.length - 1;
    slider.step = 1;
    slider.disabled = false;
    slider.addEventListener("input", () => show(Number(slider.value), true));
    for (const { svg, places } of charts) {
      svg.addEventListener("pointermove", (event) => {
        const box = svg.getBoundingClientRect();
        const x = ((event.clientX - box.left) / box.width) * svg.viewBox.baseVal.width;
        let nearest = 0;
        steps.forEach((step, i) => { if (Math.abs(places.get(step) - x) < Math.abs(places.get(steps[nearest]) - x)) nearest = i; });
        show(nearest, true);
      });
    }
    show(steps.length - 1, false);
  }
})();
