
"use strict";
(() => {
  const $ = (id) => document.getElementById(id);
  const data = JSON.parse($("case-data").textContent);
  const count = data.columns[0].values.length;
  const collator = new Intl.Collator("en", { numeric: true, sensitivity: "base" });
  const integer = new Intl.NumberFormat("en");
  const GALLERY_STEP = 9;

  // A column: what it is called, its values by row, and how a value reads.
  const texts = data.columns.map((column) => ({ id: column.name, name: column.name, text: true, values: column.values }));
  const figures = data.figures.map((figure) => {
    const largest = Math.max(0, ...figure.values.map((values) => (values || []).reduce((most, v) => Math.max(most, Math.abs(v)), 0)));
    const digits = largest < 10 ? 3 : largest < 100 ? 2 : largest < 1000 ? 1 : 0;
    return {
      ...figure,
      columns: figure.values
        .map((values, model) => ({ id: figure.name + "\n" + model, name: figure.title, figure, model, digits, values }))
        .filter((column) => column.values !== null),
    };
  });
  const known = new Map([...texts, ...figures.flatMap((figure) => figure.columns)].map((column) => [column.id, column]));
  const words = Array.from({ length: count }, (_, row) => texts.map((column) => column.values[row]).join("\n").toLowerCase());

  const state = { column: null, ascending: true, page: 0, figures: new Set(data.first), models: new Set(data.models.keys()) };
  let order = Array.from({ length: count }, (_, row) => row); // of all rows
  let rows = order; // that pass the filter

  const missing = (column, row) => (column.text ? column.values[row] === "" : column.values[row] === null);
  // What has no value stands last, ascending or descending; equal values keep the order of the data set.
  const compare = (column, ascending) => (a, b) => {
    const absent = missing(column, a) - missing(column, b);
    if (absent || missing(column, a)) return absent || a - b;
    const [x, y] = [column.values[a], column.values[b]];
    const sign = column.text ? collator.compare(x, y) : x - y;
    return (ascending ? sign : -sign) || a - b;
  };
  const written = (column, row) =>
    missing(column, row) ? "–" : column.text ? column.values[row] : column.values[row].toFixed(column.digits).replace("-", "−");
  const called = (column) =>
    column.text || data.models.length === 1 ? column.name : `${column.name}, ${data.models[column.model]}`;
  const aim = (figure) => (figure.better ? ` (${figure.better} is better)` : "");
  const element = (name, parts = {}, ...inside) => {
    const made = Object.assign(document.createElement(name), parts);
    made.append(...inside);
    return made;
  };

  // --- the table ------------------------------------------------------------------------------------------------------
  const table = $("case-table");
  const [head, body] = [table.tHead, table.tBodies[0]];
  const shown = () => [
    ...texts,
    ...figures.filter((figure) => state.figures.has(figure.name))
      .flatMap((figure) => figure.columns.filter((column) => state.models.has(column.model))),
  ];

  function sorter(column, label) {
    const cell = element("th", { scope: "col", className: column.text ? "" : "n" });
    cell.dataset.column = column.id;
    cell.append(element("button", { type: "button", textContent: label }));
    cell.firstChild.setAttribute("aria-label", `${called(column)}${column.text ? "" : aim(column.figure)}: sort`);
    if (!column.text) cell.title = column.figure.definition;
    return cell;
  }

  function drawHead() {
    const columns = shown();
    const groups = data.models.length > 1;
    const top = element("tr");
    const bottom = element("tr");
    for (const column of texts) {
      const cell = sorter(column, column.name);
      if (groups) cell.rowSpan = 2;
      top.append(cell);
    }
    for (const figure of figures) {
      const part = columns.filter((column) => !column.text && column.figure.name === figure.name);
      if (!part.length) continue;
      if (!groups) {
        top.append(sorter(part[0], figure.title));
        continue;
      }
      top.append(element("th", { scope: "colgroup", colSpan: part.length, className: "model edge", title: figure.definition, textContent: figure.title }));
      for (const column of part) bottom.append(sorter(column, data.models[column.model]));
    }
    head.replaceChildren(top, ...(groups ? [bottom] : []));
    markSorted();
  }

  function markSorted() {
    for (const cell of head.querySelectorAll("[data-column]")) {
      if (cell.dataset.column === state.column) cell.setAttribute("aria-sort", state.ascending ? "ascending" : "descending");
      else cell.removeAttribute("aria-sort");
    }
  }

  function drawBody() {
    const size = Number($("page-size").value);
    const pages = Math.max(1, Math.ceil(rows.length / size));
    state.page = Math.min(Math.max(0, state.page), pages - 1);
    const part = rows.slice(state.page * size, (state.page + 1) * size);
    const columns = shown();
    body.replaceChildren(...part.map((row) => {
      const line = element("tr");
      line.dataset.row = row;
      const pictured = row in data.cards;
      line.className = pictured ? "pictured" : "";
      columns.forEach((column, place) => {
        const text = written(column, row);
        const cell = element(place ? "td" : "th", { className: column.text ? "" : "n" });
        if (!place) cell.scope = "row";
        if (!place && pictured) {
          cell.append(element("button", { type: "button", textContent: text }));
          cell.firstChild.setAttribute("aria-label", `${text}: show its pictures`);
        } else cell.textContent = text;
        line.append(cell);
      });
      return line;
    }));
    const first = part.length ? state.page * size + 1 : 0;
    const all = `${integer.format(count)} cases`;
    const found = rows.length === count ? all : `${integer.format(rows.length)} matches among ${all}`;
    $("table-status").textContent = part.length
      ? `${integer.format(first)} to ${integer.format(state.page * size + part.length)} of ${found}`
      : `no match among ${all}`;
    $("first-page").disabled = $("previous-page").disabled = state.page === 0;
    $("next-page").disabled = $("last-page").disabled = state.page === pages - 1;
  }

  function filterRows() {
    const wanted = $("filter").value.toLowerCase().split(/\s+/).filter(Boolean);
    const only = $("with-pictures");
    rows = order.filter((row) => wanted.every((word) => words[row].includes(word)) && (!only || !only.checked || row in data.cards));
    state.page = 0;
    drawBody();
  }

  function sortBy(id, ascending) {
    [state.column, state.ascending] = [id, ascending];
    order = Array.from({ length: count }, (_, row) => row);
    if (id !== null) order.sort(compare(known.get(id), ascending));
    markSorted();
    filterRows();
    sortGallery();
  }

  head.addEventListener("click", (event) => {
    const cell = event.target.closest("[data-column]");
    if (!cell) return;
    const id = cell.dataset.column;
    sortBy(id, id === state.column ? !state.ascending : true);
  });
  body.addEventListener("click", (event) => {
    const line = event.target.closest("tr");
    if (line && line.dataset.row in data.cards && !String(getSelection())) showCard(Number(line.dataset.row));
  });
  $("filter").addEventListener("input", filterRows);
  if ($("with-pictures")) $("with-pictures").addEventListener("change", filterRows);
  $("page-size").addEventListener("change", () => { state.page = 0; drawBody(); });
  const turn = (id, page) => $(id).addEventListener("click", () => { state.page = page(); drawBody(); });
  turn("first-page", () => 0);
  turn("previous-page", () => state.page - 1);
  turn("next-page", () => state.page + 1);
  turn("last-page", () => Infinity);

  function chooser(place, names, chosen) {
    names.forEach(([key, name]) => {
      const box = element("input", { type: "checkbox", checked: chosen.has(key) });
      box.addEventListener("change", () => {
        if (box.checked) chosen.add(key); else chosen.delete(key);
        drawHead();
        drawBody();
      });
      place.append(element("label", {}, box, ` ${name}`));
    });
  }
  for (const family of new Set(figures.map((figure) => figure.family))) {
    const place = element("fieldset", {}, element("legend", { textContent: family }));
    $("figure-choice").append(place);
    chooser(place, figures.filter((figure) => figure.family === family).map((figure) => [figure.name, figure.title]), state.figures);
  }
  if (data.models.length < 2) $("model-choice").hidden = true;
  chooser($("model-choice"), data.models.map((name, model) => [model, name]), state.models);

  // --- the pictures ---------------------------------------------------------------------------------------------------
  const gallery = $("gallery");
  const cards = gallery ? [...gallery.children] : []; // best, median, worst, then the others
  let cardOrder = cards;
  let limit = GALLERY_STEP;

  function drawGallery() {
    cardOrder.forEach((card, place) => { card.hidden = place >= limit; });
    $("gallery-more").hidden = limit >= cards.length;
    const column = known.get(state.column);
    const sorted = column ? `${called(column)}, ${state.ascending ? "lowest" : "highest"} first` : "best, median and worst first";
    $("gallery-status").textContent = `${Math.min(limit, cards.length)} of ${cards.length} shown: ` +
      (column && column.text ? `${called(column)}, ${state.ascending ? "first to last" : "last to first"}` : sorted);
  }

  function sortGallery() {
    if (!gallery) return;
    cardOrder = [...cards];
    if (state.column !== null) {
      const by = compare(known.get(state.column), state.ascending);
      cardOrder.sort((a, b) => by(Number(a.dataset.row), Number(b.dataset.row)));
    }
    gallery.append(...cardOrder);
    limit = GALLERY_STEP;
    $("gallery-sort").value = state.column === null ? "" : state.column;
    $("gallery-direction").disabled = state.column === null;
    drawGallery();
  }

  function showCard(row) {
    const card = $(data.cards[row]);
    limit = Math.max(limit, cardOrder.indexOf(card) + 1);
    drawGallery();
    card.scrollIntoView();
    card.focus({ preventScroll: true });
  }

  if (gallery) {
    const choice = $("gallery-sort");
    choice.append(element("option", { value: "", textContent: "best, median, worst" }));
    const option = (column, name) => element("option", { value: column.id, textContent: name });
    choice.append(...texts.map((column) => option(column, column.name)));
    for (const figure of figures) {
      if (data.models.length === 1) choice.append(...figure.columns.map((column) => option(column, figure.title)));
      else choice.append(element("optgroup", { label: figure.title }, ...figure.columns.map((column) => option(column, called(column)))));
    }
    choice.addEventListener("change", () => sortBy(choice.value || null, true));
    $("gallery-direction").addEventListener("click", () => sortBy(state.column, !state.ascending));
    $("gallery-more").addEventListener("click", () => {
      const next = cardOrder[limit];
      limit += GALLERY_STEP;
      drawGallery();
      next.focus({ preventScroll: true });
    });
    $("gallery-controls").hidden = false;
  }

  for (const id of ["table-controls", "case-scroll", "pages"]) $(id).hidden = false;
  drawHead();
  sortBy(null, true);
})();
