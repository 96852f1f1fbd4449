// What a page lacks for those who do not see it.
() => {
  const lacks = [];
  const named = (one) => one.getAttribute("aria-label")
    || (one.getAttribute("aria-labelledby") || "").split(" ")
      .map((id) => id && document.getElementById(id)?.textContent).join("")
    || one.labels?.length || one.textContent.trim() || one.querySelector("title, [alt]");
  const told = (one) => one.outerHTML.slice(0, 120);
  if (document.querySelectorAll("h1").length !== 1) lacks.push("one heading of the first level");
  if (document.querySelectorAll("main").length !== 1) lacks.push("one main");
  if (!document.documentElement.lang) lacks.push("a language");
  const controls = "input:not([type=hidden]), select, textarea";
  for (const one of document.querySelectorAll(controls))
    if (!(one.labels?.length || one.getAttribute("aria-label"))) lacks.push(`a label: ${told(one)}`);
  for (const one of document.querySelectorAll("button, a[href], summary, section, nav, form[role], dialog"))
    if (!named(one)) lacks.push(`a name: ${told(one)}`);
  for (const one of document.querySelectorAll("img"))
    if (!one.hasAttribute("alt")) lacks.push(`an alternative: ${told(one)}`);
  for (const one of document.querySelectorAll("svg"))
    if (!(one.closest("[aria-hidden=true]") || one.getAttribute("aria-label") || one.querySelector(":scope > title")))
      lacks.push(`an alternative: ${told(one)}`);
  const ids = [...document.querySelectorAll("[id]")].map((one) => one.id);
  for (const id of new Set(ids.filter((one, index) => ids.indexOf(one) !== index)))
    lacks.push(`one element alone with the id ${id}`);
  for (const name of ["aria-describedby", "aria-labelledby", "for"])
    for (const one of document.querySelectorAll(`[${name}]`))
      for (const id of one.getAttribute(name).split(" "))
        if (!document.getElementById(id)) lacks.push(`what ${name} points to: ${told(one)}`);
  return lacks;
}
