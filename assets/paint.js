// A brush over a picture. props.value is the list of strokes, [color or "erase", radius, [x, y, x, y, ...]] in the
// picture's own pixels; props.picture and props.palette come from the page.
const find = (name) => element.querySelector(name);
const image = find("img"), canvas = find("canvas"), pen = canvas.getContext("2d"), pick = find("input[type=color]");
const tools = find(".of-tools"), swatches = find(".of-swatches");
let color = pick.value, line = null;

function draw() {
  pen.clearRect(0, 0, canvas.width, canvas.height);
  pen.lineCap = pen.lineJoin = "round";
  for (const [ink, radius, points] of [...(props.value || []), ...(line ? [line] : [])]) {
    pen.globalCompositeOperation = ink === "erase" ? "destination-out" : "source-over";
    pen.strokeStyle = ink === "erase" ? "#000" : ink;
    pen.lineWidth = 2 * radius;
    pen.beginPath();
    pen.moveTo(points[0], points[1]);
    for (let k = 0; k < points.length; k += 2) pen.lineTo(points[k], points[k + 1] + (points.length === 2 ? 0.01 : 0));
    pen.stroke();
  }
}

function choose(ink) {
  color = ink;
  if (ink !== "erase") pick.value = ink;
  for (const button of tools.querySelectorAll("button[data-ink]"))
    button.setAttribute("aria-pressed", button.dataset.ink === ink);
}

function show() {
  if (props.picture && image.getAttribute("src") !== props.picture) image.src = props.picture;
  const palette = props.palette || [];
  if (swatches.dataset.shown !== palette.join()) {
    swatches.dataset.shown = palette.join();
    swatches.innerHTML = palette
      .map((ink) => `<button data-ink="${ink}" aria-label="color ${ink}" style="background:${ink}"></button>`).join("");
    if (palette.length) choose(palette[0]);
  }
  draw();
}

function set(strokes) {
  props.value = strokes;
  draw();
  trigger("input");
}

function place(event) {
  const box = canvas.getBoundingClientRect();
  return [(event.clientX - box.left) * canvas.width / box.width, (event.clientY - box.top) * canvas.height / box.height]
    .map((at) => Math.round(10 * at) / 10);
}

image.onload = () => {
  [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
  draw();
};
canvas.onpointerdown = (event) => {
  canvas.setPointerCapture(event.pointerId);
  line = [color, (find("input[type=range]").value * canvas.width) / 1000, place(event)];
  draw();
};
canvas.onpointermove = (event) => {
  if (!line) return;
  for (const part of event.getCoalescedEvents?.() || [event]) line[2].push(...place(part));
  draw();
};
canvas.onpointerup = canvas.onpointercancel = () => {
  if (!line) return;
  const strokes = [...(props.value || []), line];
  line = null;
  set(strokes);
};
tools.onclick = (event) => {
  const button = event.target.closest("button");
  if (!button) return;
  if (button.dataset.ink) choose(button.dataset.ink);
  else set(button.name === "undo" ? (props.value || []).slice(0, -1) : []);
};
pick.oninput = () => choose(pick.value);
watch(["value", "picture", "palette"], show);
show();
