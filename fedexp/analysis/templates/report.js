"use strict";
(() => {
  // A number, alone or with what belongs to it: "0.961 ± 0.002", "12 of 15", "2 (1 of 3)".
  const NUMBER = /^[+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?(?=$| ±| of | \()/i;
  const NOTHING = new Set(["", "-", "–", "never", "baseline"]);
  const words = new Intl.Collator("en", { numeric: true });

  // Rounds that only some runs needed: where half of them never got there, so did the median.
  const censored = (text) => {
    const found = text.match(/^(\d+(?:\.\d+)?) \((\d+) of (\d+)\)$/);
    return found && 2 * found[2] <= Number(found[3]) ? 1e9 + Number(found[1]) : null;
  };

  const key = (text) => {
    if (censored(text) !== null) return censored(text);
    const found = text.replace("−", "-").replaceAll(",", "").match(NUMBER);
    return found ? Number(found[0]) : NOTHING.has(text) ? null : text;
  };

  const compare = (left, right) =>
    typeof left === "number" && typeof right === "number"
      ? left - right
      : words.compare(String(left), String(right));

  // What has no number comes last in either direction.
  const sort = (table, column, direction) => {
    const groups = [...table.tBodies].map((body) => ({
      body,
      key: key(body.rows[0].cells[column].textContent.trim()),
    }));
    groups.sort((a, b) =>
      a.key === null || b.key === null
        ? (a.key === null) - (b.key === null)
        : direction * compare(a.key, b.key)
    );
    table.append(...groups.map((group) => group.body));
  };

  for (const table of document.querySelectorAll("table.sortable")) {
    const headings = [...table.tHead.rows[0].cells];
    headings.forEach((heading, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...heading.childNodes);
      heading.append(button);
      heading.setAttribute("aria-sort", "none");
      button.addEventListener("click", () => {
        const up = heading.getAttribute("aria-sort") !== "ascending";
        headings.forEach((other) => other.setAttribute("aria-sort", "none"));
        heading.setAttribute("aria-sort", up ? "ascending" : "descending");
        sort(table, column, up ? 1 : -1);
      });
    });
  }

  // Paper cannot be unfolded.
  window.addEventListener("beforeprint", () => {
    document.querySelectorAll("details").forEach((folded) => (folded.open = true));
  });
})();
