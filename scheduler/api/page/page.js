// Renders openapi.json. Everything is put in as text, never as markup.
"use strict";

const METHODS = ["get", "post", "put", "patch", "delete"];

function node(name, attributes, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes || {})) made.setAttribute(key, value);
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

function typeOf(schema) {
  if (!schema) return "";
  if (schema.$ref) {
    const name = schema.$ref.split("/").pop();
    return node("a", { href: "#schema-" + name }, name);
  }
  const several = schema.anyOf || schema.oneOf;
  if (several) {
    const out = node("span");
    several.forEach((one, index) => out.append(index ? " | " : "", typeOf(one)));
    return out;
  }
  if (schema.type === "array") return node("span", {}, "list of ", typeOf(schema.items));
  if (schema.enum) return schema.enum.map((value) => JSON.stringify(value)).join(" | ");
  return [schema.type || "any", schema.format && "(" + schema.format + ")"].filter(Boolean).join(" ");
}

function json(value) {
  return node("pre", {}, JSON.stringify(value, null, 2));
}

function content(media) {
  const out = node("div");
  for (const [type, body] of Object.entries(media || {})) {
    out.append(node("p", {}, node("code", {}, type), " ", typeOf(body.schema)));
    if (body.example !== undefined) out.append(typeof body.example === "string" ? node("pre", {}, body.example) : json(body.example));
  }
  return out;
}

function operation(path, method, what) {
  const body = node("div", {}, node("p", {}, what.description || ""));
  const permission = (what.security || []).flatMap((one) => one.bearer || []);
  if (permission.length) body.append(node("p", {}, "Permission: ", node("code", {}, permission.join(", "))));
  if ((what.parameters || []).length) {
    const rows = what.parameters.map((p) =>
      node("tr", {}, node("td", {}, node("code", {}, p.name)), node("td", {}, p.in), node("td", {}, typeOf(p.schema)),
        node("td", {}, p.description || "")));
    body.append(node("h3", {}, "Parameters"), node("table", {}, ...rows));
  }
  if (what.requestBody) body.append(node("h3", {}, "Body"), content(what.requestBody.content));
  for (const [status, answer] of Object.entries(what.responses)) {
    const good = status < "400";
    body.append(good ? node("h3", {}, status + " ", answer.description) : node("p", {}, node("code", {}, status), " ", answer.description));
    if (good) body.append(content(answer.content));
  }
  const head = node("summary", {}, node("span", { class: "method " + method }, method.toUpperCase()), node("code", {}, path),
    node("span", { class: "what" }, what.summary));
  const made = node("details", { id: what.operationId }, head, body);
  made.dataset.text = [method, path, what.summary, ...what.tags].join(" ").toLowerCase();
  return made;
}

function show(document_) {
  document.getElementById("about").textContent = document_.info.description + " Version " + document_.info.version + ".";
  const sections = new Map(document_.tags.map((tag) => [tag.name, node("section", {}, node("h2", {}, tag.name))]));
  for (const [path, methods] of Object.entries(document_.paths))
    for (const method of METHODS)
      if (methods[method]) sections.get(methods[method].tags[0]).append(operation(path, method, methods[method]));
  document.getElementById("operations").append(...sections.values());
  for (const [name, schema] of Object.entries(document_.components.schemas)) {
    const rows = Object.entries(schema.properties || {}).map(([field, type]) =>
      node("tr", {}, node("td", {}, node("code", {}, field)), node("td", {}, typeOf(type)), node("td", {}, type.description || "")));
    document.getElementById("schemas").append(node("details", { id: "schema-" + name }, node("summary", {}, node("code", {}, name)),
      node("div", {}, node("p", {}, schema.description || ""), node("table", {}, ...rows))));
  }
  open();
}

function open() {
  const target = location.hash && document.getElementById(location.hash.slice(1));
  if (target) { target.open = true; target.scrollIntoView(); }
}

document.getElementById("filter").addEventListener("input", (event) => {
  const words = event.target.value.toLowerCase().split(/\s+/).filter(Boolean);
  for (const section of document.querySelectorAll("#operations section")) {
    const entries = [...section.querySelectorAll("details")];
    for (const entry of entries) entry.hidden = !words.every((word) => entry.dataset.text.includes(word));
    section.hidden = entries.every((entry) => entry.hidden);
  }
});
addEventListener("hashchange", open);
fetch("openapi.json").then((answer) => answer.json()).then(show, (error) => {
  document.getElementById("about").textContent = "openapi.json cannot be read: " + error;
});
