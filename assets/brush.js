// A brush over a picture. props.value is {frame: scribbles}, a stroke [paint, radius, [[x, y], ...]] in widths of the
// picture, paint a color, "keep" or "erase"; props.picture, props.frame and props.palette come from the page.
const find = (name) => element.querySelector(name);
const image = find("img"), canvas = find("canvas"), pen = canvas.getContext("2d"), pick = find("input[type=color]");
const tools = find(".of-tools"), swatches = find(".of-swatches");
let paint = pick.value, line = null;

const scribbles = () => (props.value || {})[props.frame] || [];

function draw() {
  const width = canvas.width;
  pen.clearRect(0, 0, width, canvas.height);
  pen.lineCap = pen.lineJoin = "round";
  for (const [color, radius, points] of [...scribbles(), ...(line ? [line] : [])]) {
    pen.globalCompositeOperation = color === "erase" ? "destination-out" : "source-over";
    pen.strokeStyle = color === "erase" ? "#000" : color === "keep" ? "#fff" : color;
    pen.lineWidth = 2 * radius * width;
    pen.setLineDash(color === "keep" ? [pen.lineWidth / 2, 1.5 * pen.lineWidth] : []);
    pen.beginPath();
    pen.moveTo(points[0][0] * width, points[0][1] * width);
    for (const [x, y] of points) pen.lineTo(x * width, y * width + (points.length === 1 ? 0.01 : 0));
    pen.stroke();
  }
}

function choose(chosen) {
  paint = chosen;
  if (paint.startsWith("#")) pick.value = paint;
  for (const button of tools.querySelectorAll("[data-paint]"))
    button.setAttribute("aria-pressed", button.dataset.paint === paint);
}

function show() {
  if (props.picture && image.getAttribute("src") !== props.picture) image.src = props.picture;
  const palette = props.palette || [];
  if (swatches.dataset.shown !== palette.join()) {
    swatches.dataset.shown = palette.join();
    swatches.innerHTML = palette
      .map((color) => `<button type="button" data-paint="${color}" aria-label="color ${color}" style="background:${color}">` +
        "</button>").join("");
    if (palette.length && paint !== "keep" && paint !== "erase") choose(palette[0]);
  }
  draw();
}

function set(list) {
  props.value = { ...(props.value || {}), [props.frame]: list };
  draw();
  trigger("input");
}

function place(event) {
  const box = canvas.getBoundingClientRect();
  return [event.clientX - box.left, event.clientY - box.top].map((at) => Math.round((1e5 * at) / box.width) / 1e5);
}

image.onload = () => {
  [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
  draw();
};
canvas.onpointerdown = (event) => {
  canvas.setPointerCapture(event.pointerId);
  line = [paint, find("input[type=range]").value / 1000, [place(event)]];
  draw();
};
canvas.onpointermove = (event) => {
  if (!line) return;
  for (const part of event.getCoalescedEvents?.() || [event]) line[2].push(place(part));
  draw();
};
canvas.onpointerup = canvas.onpointercancel = () => {
  if (!line) return;
  const list = [...scribbles(), line];
  line = null;
  set(list);
};
tools.onclick = (event) => {
  const button = event.target.closest("button");
  if (!button) return;
  if (button.dataset.paint) choose(button.dataset.paint);
  else set(button.name === "undo" ? scribbles().slice(0, -1) : []);
};
pick.onclick = pick.oninput = () => choose(pick.value);
watch(["value", "picture", "frame", "palette"], show);
show();
