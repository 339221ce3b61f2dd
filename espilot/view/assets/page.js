"use strict";
(() => {
  const id = name => document.getElementById(name);
  const doc = { cells: "" };
  const frozenText = id("frozen").textContent.trim();
  const frozen = frozenText ? JSON.parse(frozenText) : null;
  const view = { block: null, cursor: 0, spokenAt: 0, spokenLevel: "", asked: 0 };
  let boxes = null;                      // how the map is drawn now: {size|w,h, columns, per, first, n}

  // ---- small things -------------------------------------------------------------------------
  function make(tag, text, attributes = {}) {
    const element = document.createElement(tag);
    if (text !== undefined && text !== null) element.textContent = text;
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    return element;
  }
  const show = (element, yes) => { element.hidden = !yes; };
  const colour = name => getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim();
  let tones = {};
  function readTones() {
    for (const name of ["idle", "idle-ink", "work", "risk", "safe", "lost", "back", "mark", "card", "ink", "soft", "line"])
      tones[name] = colour(name);
  }
  const clock = t => new Date(t * 1000).toLocaleTimeString([], { hour12: false });
  const count = n => Number(n).toLocaleString("en");
  const short = n => Number(n).toLocaleString("en", { notation: "compact" });
  const span = s => s < 10 ? s.toFixed(2) + " s" : s < 60 ? Math.round(s) + " s"
    : s < 3600 ? Math.floor(s / 60) + " min " + Math.round(s % 60) + " s" : Math.floor(s / 3600) + " h " + Math.floor(s % 3600 / 60) + " min";
  // Filling a list anew would take the focus and the selection away each second.
  const filled = new Map();
  function fill(element, data, build) {
    const key = JSON.stringify(data);
    if (filled.get(element) === key) return;
    filled.set(element, key);
    element.replaceChildren(...build(data));
  }
  function sheet(canvas, height) {
    const width = canvas.parentElement.clientWidth, ratio = window.devicePixelRatio || 1;
    canvas.width = Math.round(width * ratio); canvas.height = Math.round(height * ratio);
    canvas.style.width = width + "px"; canvas.style.height = height + "px";
    const pen = canvas.getContext("2d");
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, width, height);
    pen.font = "12px system-ui, 'DejaVu Sans', sans-serif";
    return [pen, width];
  }

  // ---- the map ------------------------------------------------------------------------------
  const total = () => doc.map ? doc.map.total : 0;
  const letterAt = n => n < doc.cells.length ? doc.cells[n] : "w";
  const stateOf = letter => doc.legend.find(each => each.letter === letter.toLowerCase()) || doc.legend[0];
  const ORDER = "ftpdsrwb";               // in a block from safe (below) to waiting (above); failed on top

  const SLOW = 3;                         // in work for so many medians: framed
  let inWork = new Map();                // number on the map: elapsed time in medians
  function readWork() {
    const work = doc.work, median = work && work.median_s;
    inWork = new Map(median ? work.cells.map(([at, since]) => [at, Math.max(0, lastTime() - since) / Math.max(median, .001)]) : []);
  }
  function drawCell(pen, x, y, size, letter, share) {
    const low = letter.toLowerCase(), tone = stateOf(letter).tone, s = size - Math.max(1, Math.round(size / 10));
    const mid = s / 2, fine = size >= 9;
    pen.fillStyle = pen.strokeStyle = tones[tone];
    pen.lineWidth = 1;
    if (low === "w" || low === "r") {
      pen.strokeRect(x + .5, y + .5, s - 1, s - 1);
      if (low === "r") { pen.fillStyle = tones["idle-ink"]; pen.beginPath(); pen.arc(x + mid, y + mid, Math.max(1, s / 5), 0, 7); pen.fill(); }
    } else if (low === "d") {
      pen.strokeRect(x + .5, y + .5, s - 1, s - 1);
      pen.beginPath(); pen.moveTo(x, y + s); pen.lineTo(x + s, y + s); pen.lineTo(x + s, y); pen.fill();
    } else if (low === "s" && share !== undefined && fine) {
      // Fills up from below until it has taken as long as others.
      pen.globalAlpha = .35; pen.fillRect(x, y, s, s); pen.globalAlpha = 1;
      const tall = Math.round(s * Math.min(1, share));
      pen.fillRect(x, y + s - tall, s, tall);
      if (share >= SLOW) { pen.strokeStyle = tones.risk; pen.lineWidth = 3; pen.strokeRect(x + 1.5, y + 1.5, s - 3, s - 3); }
    } else {
      pen.fillRect(x, y, s, s);
    }
    if (fine) {
      pen.fillStyle = pen.strokeStyle = tones.card;
      pen.lineWidth = Math.max(1.2, s / 9);
      const a = s * .28, b = s * .72;
      pen.beginPath();
      if (low === "s") { pen.moveTo(x + a, y + a); pen.lineTo(x + b, y + mid); pen.lineTo(x + a, y + b); pen.fill(); }
      if (low === "p") pen.fillRect(x + a, y + mid - s * .08, b - a, s * .17);
      if (low === "t") { pen.moveTo(x + mid, y + a); pen.lineTo(x + b, y + mid); pen.lineTo(x + mid, y + b); pen.lineTo(x + a, y + mid); pen.fill(); }
      if (low === "x") { pen.moveTo(x + a, y + a); pen.lineTo(x + b, y + b); pen.moveTo(x + b, y + a); pen.lineTo(x + a, y + b); pen.stroke(); }
      if (low === "z") { pen.moveTo(x + a, y + a); pen.lineTo(x + b, y + a); pen.lineTo(x + mid, y + b); pen.fill(); }
      if (low === "b") { pen.moveTo(x + b, y + a); pen.lineTo(x + a, y + mid); pen.lineTo(x + b, y + b); pen.stroke(); }
    }
    if (letter !== low) {
      const c = Math.max(3, s * .36);
      pen.fillStyle = tones.mark;
      pen.beginPath(); pen.moveTo(x + s - c, y); pen.lineTo(x + s, y); pen.lineTo(x + s, y + c); pen.fill();
    }
  }
  function tally(from, n) {
    const counts = {};
    for (let at = from; at < from + n; at++) { const low = letterAt(at).toLowerCase(); counts[low] = (counts[low] || 0) + 1; }
    return counts;
  }
  function drawBlock(pen, x, y, w, h, from, n, per) {
    const counts = tally(from, n);
    const lost = (counts.x || 0) + (counts.z || 0);
    let bottom = y + h;
    pen.fillStyle = tones.card; pen.fillRect(x, y, w, h);
    for (const low of ORDER) {
      if (!counts[low]) continue;
      const tall = Math.max(1, h * counts[low] / per);
      pen.fillStyle = tones[stateOf(low).tone];
      pen.globalAlpha = low === "w" || low === "r" ? .55 : 1;
      pen.fillRect(x, Math.max(y, bottom - tall), w, Math.min(tall, bottom - y));
      pen.globalAlpha = 1;
      if (stateOf(low).tone === "risk") {     // hatched: not by colour alone
        pen.strokeStyle = tones.card; pen.lineWidth = 1;
        pen.save(); pen.beginPath(); pen.rect(x, Math.max(y, bottom - tall), w, tall); pen.clip(); pen.beginPath();
        for (let d = -w; d < h + w; d += 4) { pen.moveTo(x, bottom - d); pen.lineTo(x + w, bottom - d - w); }
        pen.stroke(); pen.restore();
      }
      bottom -= tall;
      if (bottom <= y) break;
    }
    if (lost) {                             // one among hundreds must be seen: a cap with a gap below it
      const tall = Math.min(h, Math.max(3.5, 1.5 + h * lost / per));
      pen.fillStyle = tones.card; pen.fillRect(x, y, w, tall);
      pen.fillStyle = tones.lost; pen.fillRect(x, y, w, tall - 1.5);
    }
  }
  function plan(width) {
    const n = view.block ? view.block.n : total(), first = view.block ? view.block.first : 0;
    const most = Math.min(4000, Math.floor(width / 8) * 45);
    if (n <= most) {
      let size = Math.floor(Math.sqrt(width * 240 / Math.max(1, n)));
      size = Math.max(7, Math.min(24, size));
      return { w: size, h: size, columns: Math.floor(width / size), per: 1, first, n, slots: n };
    }
    const w = 10, h = 24, slots = Math.floor(width / w) * 13;
    let per = 10;
    for (const step of [10, 20, 25, 50, 100, 200, 250, 500, 1000, 2000, 5000]) { per = step; if (n / per <= slots) break; }
    return { w, h, columns: Math.floor(width / w), per, first, n, slots: Math.ceil(n / per) };
  }
  function drawMap() {
    const canvas = id("map"), width = canvas.parentElement.clientWidth;
    show(id("map-section"), total() > 0);
    if (!total() || !width) return;
    boxes = plan(width);
    view.cursor = Math.min(view.cursor, boxes.slots - 1);
    const rows = Math.ceil(boxes.slots / boxes.columns);
    const [pen] = sheet(canvas, rows * boxes.h + 4);
    for (let slot = 0; slot < boxes.slots; slot++) {
      const x = 2 + slot % boxes.columns * boxes.w - (slot % boxes.columns ? 0 : 0), y = 2 + Math.floor(slot / boxes.columns) * boxes.h;
      if (boxes.per === 1) drawCell(pen, x, y, boxes.w, letterAt(boxes.first + slot), inWork.get(boxes.first + slot));
      else drawBlock(pen, x, y, boxes.w - 2, boxes.h - 3, boxes.first + slot * boxes.per, Math.min(boxes.per, boxes.n - slot * boxes.per), boxes.per);
    }
    if (document.activeElement === canvas || view.pointed) {
      const x = 2 + view.cursor % boxes.columns * boxes.w, y = 2 + Math.floor(view.cursor / boxes.columns) * boxes.h;
      pen.strokeStyle = tones.mark; pen.lineWidth = 2;
      pen.strokeRect(x - 1, y - 1, boxes.w, boxes.h - (boxes.per > 1 ? 1 : 0));
    }
    const noun = doc.noun || "range";
    let scale = boxes.per === 1 ? `Each cell is one ${noun}` : `Each block is ${count(boxes.per)} ${noun}s, stacked by state`;
    scale += view.block ? `: numbers ${count(boxes.first)} to ${count(boxes.first + boxes.n - 1)} of ${count(total())}. Escape goes back.` : `, in the order of the input. A dark corner: done again.`;
    if (boxes.per === 1 && inWork.size) scale += ` In work: filled by time, up to the median of ${span(doc.work.median_s)}; framed: ${SLOW} times longer.`;
    if (boxes.per > 1) scale = scale.replace(" A dark corner: done again.", " Hatched: at risk. A cap: some have failed.");
    if (doc.map.beyond) scale += ` ${count(doc.map.beyond)} more are not on the map.`;
    id("map-scale").textContent = scale;
    canvas.setAttribute("aria-label", `Map of ${count(total())} ${noun}s: ` + legendText());
  }
  const legendText = () => doc.legend.filter(s => doc.map.counts[s.letter]).map(s => `${count(doc.map.counts[s.letter])} ${s.name}`).join(", ");
  function drawLegend() {
    const list = id("legend");
    fill(list, doc.map.counts, counts => doc.legend.map(state => {
      const n = counts[state.letter] || 0;
      const item = make("li", null, { title: state.meaning });
      if (!n) item.className = "none";
      const swatch = make("canvas", null, { "aria-hidden": "true" });
      item.append(swatch, make("span", `${state.name} ${count(n)}`), make("span", ", " + state.meaning, { class: "unseen" }));
      return item;
    }));
    list.querySelectorAll("canvas").forEach((swatch, at) => {
      const ratio = window.devicePixelRatio || 1;
      swatch.width = swatch.height = 16 * ratio;
      const pen = swatch.getContext("2d");
      pen.setTransform(ratio, 0, 0, ratio, 0, 0);
      drawCell(pen, 0, 0, 16, doc.legend[at].letter);
    });
  }

  // ---- one range --------------------------------------------------------------------------
  const known = new Map();
  if (frozen) for (const row of frozen.rows || []) known.set(row.n, row);
  async function fetchRows(from, letter, most) {
    if (frozen) {
      const found = [];
      for (const row of frozen.rows || []) {
        if (row.n < from || (letter && stateOf(letter).name !== row.state)) continue;
        found.push(row);
        if (found.length >= most) break;
      }
      return found;
    }
    try {
      const answer = await fetch(`rows?from=${from}&state=${encodeURIComponent(letter)}&most=${most}`);
      return answer.ok ? (await answer.json()).rows : [];
    } catch { return []; }
  }
  function events(row) {
    if (!row.lfn) return "";
    return row.first === row.last ? `event ${row.first} of ${row.lfn}` : `events ${row.first} to ${row.last} of ${row.lfn}`;
  }
  function rowText(row) {
    const parts = [`${row.n}: ${row.state}${row.redone ? " (done again)" : ""}`, row.id, events(row)];
    if (row.took_s) parts.push("took " + span(row.took_s));
    const share = inWork.get(row.n);
    if (share !== undefined) parts.push(`in work for ${span(share * doc.work.median_s)}, ${share.toFixed(1)} times the median`);
    if (row.client) parts.push("process " + row.client);
    if (row.archive) parts.push(row.archive);
    if (row.diag) parts.push(row.diag);
    return parts.filter(Boolean).join(" · ");
  }
  async function describeCursor() {
    if (!boxes) return;
    const ask = ++view.asked, at = boxes.first + view.cursor * boxes.per, out = id("cell-text");
    if (boxes.per > 1) {
      const n = Math.min(boxes.per, boxes.n - view.cursor * boxes.per), counts = tally(at, n);
      out.textContent = `${count(at)} to ${count(at + n - 1)}: ` + doc.legend.filter(s => counts[s.letter]).map(s => `${counts[s.letter]} ${s.name}`).join(", ");
      return;
    }
    const state = stateOf(letterAt(at));
    out.textContent = `${count(at)}: ${state.name} (${state.meaning})`;
    if (at >= doc.cells.length) return;
    const row = known.get(at) || (await fetchRows(at, "", 1))[0];
    if (row && row.n === at && ask === view.asked) out.textContent = rowText(row);
  }
  function open() {
    if (!boxes || boxes.per === 1) return;
    const first = boxes.first + view.cursor * boxes.per;
    view.block = { first, n: Math.min(boxes.per, boxes.n - view.cursor * boxes.per), from: view.cursor };
    view.cursor = 0;
    drawMap(); describeCursor();
  }
  function close() {
    if (!view.block) return;
    view.cursor = view.block.from;
    view.block = null;
    drawMap(); describeCursor();
  }
  function nextFailure() {
    const start = boxes.first + (view.cursor + 1) * boxes.per - boxes.first;
    for (let step = 0; step < boxes.n; step++) {
      const at = (start + step) % boxes.n;
      if ("xz".includes(letterAt(boxes.first + at).toLowerCase())) { view.cursor = Math.floor(at / boxes.per); return true; }
    }
    id("cell-text").textContent = "No range has failed here.";
    return false;
  }
  function walk(event) {
    if (!boxes || event.ctrlKey || event.altKey || event.metaKey) return;
    const steps = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: boxes.columns, ArrowUp: -boxes.columns };
    let said = true;
    if (event.key in steps) {
      const next = view.cursor + steps[event.key];
      if (next >= 0 && next < boxes.slots) view.cursor = next;
    } else if (event.key === "Home") view.cursor = 0;
    else if (event.key === "End") view.cursor = boxes.slots - 1;
    else if (event.key === "Enter" || event.key === " ") { open(); said = false; }
    else if (event.key === "Escape") { close(); said = false; }
    else if (event.key === "e") said = nextFailure();
    else return;
    event.preventDefault();
    drawMap();
    if (said) describeCursor();
  }
  function slotAt(event) {
    const at = id("map").getBoundingClientRect();
    const column = Math.floor((event.clientX - at.left - 2) / boxes.w), row = Math.floor((event.clientY - at.top - 2) / boxes.h);
    const slot = row * boxes.columns + column;
    return column >= 0 && column < boxes.columns && slot >= 0 && slot < boxes.slots ? slot : null;
  }

  // ---- the table ----------------------------------------------------------------------------
  const TABLE_ROWS = 50;
  async function showTable(from) {
    const rows = await fetchRows(from, id("table-state").value, TABLE_ROWS);
    id("table").tBodies[0].replaceChildren(...rows.map(row => {
      const line = make("tr");
      const cells = [row.n, row.id, events(row), row.state + (row.redone ? ", done again" : ""), row.took_s ? span(row.took_s) : "", row.client || "", row.diag || row.archive];
      cells.forEach((text, at) => line.append(make("td", text, at === 1 || at === 6 || at === 2 ? { class: "long" } : {})));
      return line;
    }));
    if (!rows.length) {
      const line = make("tr"), cell = make("td", "There are none from here on.", { colspan: 7 });
      line.append(cell);
      id("table").tBodies[0].append(line);
    }
    if (rows.length) id("table-from").dataset.next = rows[rows.length - 1].n + 1;
    id("table-from").value = from;
  }

  // ---- timeline and throughput -----------------------------------------------------------------
  function ticks(pen, from, to, left, width, y) {
    const wanted = Math.max(2, Math.floor((width - left) / 110)), rough = (to - from) / wanted;
    const step = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 21600, 43200, 86400].find(s => s >= rough) || 172800;
    const shift = new Date(from * 1000).getTimezoneOffset() * 60;
    pen.fillStyle = tones.soft; pen.textAlign = "center";
    for (let t = Math.ceil((from - shift) / step) * step + shift; t <= to; t += step) {
      const x = left + (t - from) / (to - from) * (width - left);
      if (x < left + 24 || x > width - 26) continue;
      pen.fillText(step < 60 ? clock(t) : clock(t).slice(0, 5), x, y);
      pen.globalAlpha = .35; pen.fillRect(x, 0, 1, y - 12); pen.globalAlpha = 1;
    }
    pen.textAlign = "left";
  }
  function drawLanes() {
    const d = doc.lanes;
    const jobs = Boolean(d && d.noun === "job"), enough = Boolean(d && d.lanes.length > (jobs ? 0 : 1));
    show(id("lanes-section"), enough);
    if (!enough) return;
    const many = d.lanes.length > 24, tall = many ? 11 : 19, canvas = id("lanes");
    const [pen, width] = sheet(canvas, d.lanes.length * tall + 24);
    const longest = Math.max(...d.lanes.map(lane => pen.measureText(lane.name).width));
    const left = Math.ceil(Math.min(width / 3, longest + 10)), until = Math.max(lastTime() - d.from, 1);
    let to = until;
    const deadline = doc.deadline_at ? doc.deadline_at - d.from : null;
    if (deadline && deadline < until * 2) to = Math.max(to, deadline * 1.01);
    const x = t => left + Math.max(0, Math.min(1, t / to)) * (width - left);
    ticks(pen, d.from, d.from + to, left, width, d.lanes.length * tall + 18);
    d.lanes.forEach((lane, at) => {
      const y = at * tall, h = tall - (many ? 2 : 4), own = lane.name === "stage-out";
      pen.fillStyle = tones.ink; pen.font = (many ? "10px" : "12px") + " system-ui, 'DejaVu Sans', sans-serif";
      pen.fillText(lane.name, 0, y + h - (many ? 0 : 3));
      pen.fillStyle = tones.idle; pen.globalAlpha = .45; pen.fillRect(left, y, x(until) - left, h); pen.globalAlpha = 1;
      for (const [a, b, how] of lane.boxes || []) {
        pen.fillStyle = how === "x" ? tones.lost : how === "r" ? tones["idle-ink"] : own ? tones.risk : tones.work;
        const w = Math.max(1, x(b) - x(a) - (x(b) - x(a) > 4 ? 1 : 0));
        pen.fillRect(x(a), y, w, h);
        if (how !== "d") { pen.fillStyle = tones.mark; pen.fillRect(x(b) - 2, y - 1, 2, h + 2); }
      }
      if (lane.bins !== undefined) for (let bin = 0; bin < lane.bins.length; bin++) {
        const share = Number(lane.bins[bin]) / 9;
        if (!share) continue;
        pen.fillStyle = own ? tones.risk : tones.work;
        const a = x(bin * d.width_s), b = Math.min(x(until), x((bin + 1) * d.width_s)), high = Math.max(1, h * share);
        pen.fillRect(a, y + h - high, Math.max(.5, b - a + .3), high);
      }
      if (lane.now !== null) { pen.fillStyle = own ? tones.risk : tones.work; pen.globalAlpha = .55; pen.fillRect(x(lane.now), y, Math.max(2, x(until) - x(lane.now)), h); pen.globalAlpha = 1; }
    });
    for (const [t, kind] of doc.marks || []) line(pen, x(t - d.from), d.lanes.length * tall, kind === "start" ? tones.soft : tones.lost, kind === "start" ? [2, 3] : [5, 2]);
    if (!frozen && doc.running !== false) line(pen, x(until), d.lanes.length * tall, tones.mark, []);
    if (deadline && deadline <= to) line(pen, x(deadline), d.lanes.length * tall, tones.lost, []);
    const busy = lane => { const since = until || 1; return Math.min(100, Math.round(100 * lane.busy_s / since)) + " %"; };
    const boxed = d.lanes.some(lane => lane.boxes);
    id("lanes-key").textContent = (jobs ? `Each lane is one job, as seen since ${clock(d.from)}; pale: at work now; red: failed. ` : boxed ? "Each blue box is one range, each amber one an archive on its way to the storage; pale: now in work; red: failed; grey: waiting for work. "
      : `Height: how busy in each ${span(d.width_s)}; blue: ranges, amber: archives on their way to the storage. `)
      + (jobs ? "" : "Dashed lines: payload started or ended, verdicts.") + (d.dropped ? ` ${d.dropped} older ${jobs ? "jobs" : "processes"} are not shown.` : "");
    canvas.setAttribute("aria-label", "Timeline: " + d.lanes.slice(0, 8).map(lane => `${lane.name} ended ${lane.ended}`).join(", "));
    fill(id("lanes-table").tBodies[0], d.lanes, lanes => lanes.map(lane => {
      const row = make("tr");
      for (const text of [lane.name, lane.ended, lane.failed, lane.name === "stage-out" ? "" : busy(lane), lane.now === null ? "idle" : "since " + clock(d.from + lane.now)]) row.append(make("td", text));
      return row;
    }));
  }
  function line(pen, x, height, tone, dash) {
    pen.strokeStyle = tone; pen.lineWidth = 1.5; pen.setLineDash(dash);
    pen.beginPath(); pen.moveTo(Math.max(1, x - .5), 0); pen.lineTo(Math.max(1, x - .5), height); pen.stroke(); pen.setLineDash([]);
  }
  const lastTime = () => doc.ended_at || doc.taken_at;
  function drawPace() {
    const d = doc.history;
    const n = d ? Math.max(d.made.length, d.reported.length) : 0;
    const some = n > 1 && (d.made.some(Boolean) || d.reported.some(Boolean));
    show(id("pace-section"), some);
    if (!some) return;
    drawBurn(d);
    const canvas = id("pace"), high = 80, [pen, width] = sheet(canvas, high + 24), left = 44;
    const span_s = Math.max(n * d.width_s, 1), perMinute = 60 / d.width_s;
    // Reports come in heaps, an archive at a time: where it is known, what was made tells the pace.
    const bars = d.made.length ? [] : d.reported, most = Math.max(1, ...d.made, ...bars) * perMinute;
    const unit = 10 ** Math.floor(Math.log10(most)), top = [1, 2, 5, 10].map(f => f * unit).find(v => v >= most) || most;
    const x = at => left + at / n * (width - left), y = v => high - v * perMinute / top * (high - 8);
    ticks(pen, d.from, d.from + span_s, left, width, high + 18);
    pen.fillStyle = tones.soft; pen.textAlign = "right";
    for (const v of [0, top]) { const level = high - v / top * (high - 8); pen.fillText(short(v), left - 6, level + 4); pen.globalAlpha = .35; pen.fillRect(left, level, width - left, 1); pen.globalAlpha = 1; }
    pen.textAlign = "left";
    pen.fillStyle = tones.safe;
    bars.forEach((v, at) => { if (v) pen.fillRect(x(at), y(v), Math.max(1, x(at + 1) - x(at) - .5), high - y(v)); });
    pen.strokeStyle = tones.work; pen.lineWidth = 2; pen.beginPath();
    d.made.forEach((v, at) => { pen.lineTo((x(at) + x(at + 1)) / 2, y(v)); });
    pen.stroke();
    const made = d.made.reduce((a, b) => a + b, 0), reported = d.reported.reduce((a, b) => a + b, 0);
    id("pace-key").textContent = `${doc.noun || "range"}s per minute, in bins of ${span(d.width_s)}. ` + (d.made.length ? "Blue line: made." : "Green bars: finished.");
    canvas.setAttribute("aria-label", `Throughput: ${d.made.length ? count(made) + " made, " : ""}${count(reported)} reported in ${span(span_s)}`);
    const every = Math.max(1, Math.ceil(n / 24)), sum = (list, at) => (list || []).slice(at, at + every).reduce((a, b) => a + b, 0);
    fill(id("pace-table").tBodies[0], [every, d], () => {
      const lines = [];
      for (let at = 0; at < n; at += every) {
        const row = make("tr");
        for (const text of [clock(d.from + at * d.width_s), sum(d.made, at), sum(d.reported, at), sum(d.failed, at)]) row.append(make("td", text));
        lines.push(row);
      }
      return lines;
    });
  }

  function drawBurn(d) {
    // How much is safe and made over time, and where it goes at the present pace.
    const canvas = id("burn"), high = 150, [pen, width] = sheet(canvas, high + 24), left = 44;
    const until = Math.max(lastTime() - d.from, 1), all = Math.max(1, total()), expected = doc.forecast || {};
    const safe = (doc.map.counts.f || 0) + (doc.map.counts.t || 0), reported = d.reported.reduce((a, b) => a + b, 0);
    const deadline = doc.deadline_at ? Math.max(until, doc.deadline_at - d.from) : null;
    let end = until;
    if (doc.running && expected.rate > 0) {
      end = until + (all - safe) / expected.rate;
      if (deadline !== null) end = Math.min(end, deadline);
      end = Math.min(end, Math.max(until * 2.5, until + 10));
    }
    let to = end;
    if (doc.running && deadline !== null && deadline < Math.max(end, until) * 1.5) to = Math.max(to, deadline * 1.01);
    const x = t => left + t / to * (width - left - 2), y = v => high - Math.min(1, v / all) * (high - 10);
    ticks(pen, d.from, d.from + to, left, width, high + 18);
    pen.fillStyle = tones.soft; pen.textAlign = "right";
    for (const v of [0, all / 2, all]) { pen.fillText(short(v), left - 6, y(v) + 4); pen.globalAlpha = .35; pen.fillRect(left, y(v), width - left, 1); pen.globalAlpha = 1; }
    pen.textAlign = "left";
    const before = Math.max(0, safe - reported);
    const path = (list, base) => {
      let sum = base;
      pen.lineTo(x(0), y(sum));
      list.forEach((v, at) => { const t = (at + 1) * d.width_s; if (at * d.width_s <= until) { sum += v; pen.lineTo(x(Math.min(t, until)), y(sum)); } });
      pen.lineTo(x(until), y(sum));
    };
    pen.fillStyle = tones.safe; pen.globalAlpha = .8; pen.beginPath(); pen.moveTo(x(0), high); path(d.reported, before); pen.lineTo(x(until), high); pen.fill(); pen.globalAlpha = 1;
    if (d.made.length) { pen.strokeStyle = tones.work; pen.lineWidth = 2; pen.beginPath(); path(d.made, before); pen.stroke(); }
    const ahead = end > until, reach = Math.min(all, safe + (expected.rate || 0) * (end - until));
    if (ahead) {
      pen.strokeStyle = tones.soft; pen.lineWidth = 2; pen.setLineDash([5, 4]);
      pen.beginPath(); pen.moveTo(x(until), y(safe)); pen.lineTo(x(end), y(reach)); pen.stroke(); pen.setLineDash([]);
      line(pen, x(until), high, tones.mark, []);
    }
    if (deadline !== null && doc.running && deadline <= to) line(pen, x(deadline), high, tones.lost, []);
    const noun = doc.noun || "range";
    id("burn-key").textContent = `${noun}s over time. Green: safe and reported.` + (d.made.length ? " Blue line: made." : "")
      + (ahead ? " Dashed: at the present pace." : "") + (deadline !== null && doc.running && deadline <= to ? " Red line: the deadline." : "");
    canvas.setAttribute("aria-label", `${count(safe)} of ${count(all)} ${noun}s are safe. ${expected.text || ""}`);
  }

  // ---- all of it ------------------------------------------------------------------------------
  function pairs(element, section, data) {
    show(section, Boolean(data && data.length));
    fill(element, data || [], list => list.flatMap(([label, text]) => [make("dt", label), make("dd", text)]));
  }
  function draw() {
    if (!doc.schema) return;
    document.title = `${doc.title} · espilot`;
    id("title").textContent = doc.title;
    const state = id("state");
    if (state.textContent !== doc.state.text) state.textContent = doc.state.text;
    state.dataset.level = doc.state.level;
    id("when").textContent = (frozen ? "frozen as of " : "as of ") + new Date(doc.taken_at * 1000).toLocaleString([], { hour12: false });
    fill(id("tiles"), doc.tiles, list => list.map(each => {
      const box = make("div");
      box.append(make("dt", each.label), make("dd", each.value, { class: "value", "data-level": each.level }), make("dd", each.note, { class: "more" }));
      return box;
    }));
    show(id("forecast"), Boolean(doc.forecast && doc.forecast.text));
    id("forecast").textContent = doc.forecast ? doc.forecast.text : "";
    const signs = { ok: "✓", note: "ℹ", warn: "⚠", bad: "✗" };
    fill(id("findings"), doc.health, list => list.map(each => {
      const item = make("li", `${signs[each.level]} ${each.text}`, { "data-level": each.level });
      if (each.remedy) item.append(make("span", each.remedy, { class: "remedy" }));
      return item;
    }));
    readWork();
    drawLegend(); drawMap(); drawLanes(); drawPace();
    pairs(id("stageout"), id("stageout-section"), doc.stageout);
    pairs(id("facts"), id("facts-section"), doc.facts);
    show(id("resources-section"), Boolean(doc.resources && doc.resources.length));
    fill(id("resources"), doc.resources || [], list => list.map(each => {
      const item = make("li"), row = make("div", null, { class: "row" });
      row.append(make("span", each.name), make("span", each.limit ? `${each.value} of ${each.limit}` : each.value));
      item.append(row);
      if (each.share !== null) {
        const bar = make("div", null, { class: "bar", role: "img", "aria-label": `${Math.round(each.share * 100)} % of the limit` }), inner = make("div");
        inner.style.width = Math.min(100, each.share * 100) + "%";
        if (each.share >= 1) inner.className = "over"; else if (each.share >= .8) inner.className = "near";
        bar.append(inner); item.append(bar);
      }
      return item;
    }));
    fill(id("tables"), doc.tables || [], list => list.map((table, at) => {
      const section = make("section", null, { "aria-labelledby": "extra-" + at }), wide = make("div", null, { class: "wide", tabindex: "0", role: "region", "aria-label": table.title });
      const element = make("table"), head = make("thead"), headRow = make("tr"), body = make("tbody");
      for (const text of table.head) headRow.append(make("th", text, { scope: "col" }));
      for (const row of table.rows) { const line = make("tr"); for (const text of row) line.append(make("td", text)); body.append(line); }
      head.append(headRow); element.append(head, body); wide.append(element);
      section.append(make("h2", table.title, { id: "extra-" + at }), wide);
      return section;
    }));
    show(id("marks-section"), Boolean(doc.marks && doc.marks.length));
    fill(id("marks"), doc.marks || [], list => list.slice().reverse().map(([t, , text]) => {
      const item = make("li");
      item.append(make("time", clock(t), { datetime: new Date(t * 1000).toISOString() }), make("span", text));
      return item;
    }));
    show(id("log-section"), Boolean(doc.log && doc.log.length));
    const log = (doc.log || []).join("\n");
    if (id("log").textContent !== log) id("log").textContent = log;
    id("footer").textContent = frozen ? "A report by espilot: frozen, it changes no more." : "Live from espilot.";
    speak();
  }
  function speak() {
    // Politely: at a change for the worse or better, else four times a minute at most.
    const now = Date.now(), level = doc.state.level;
    if (level === view.spokenLevel && now - view.spokenAt < 15000) return;
    view.spokenAt = now; view.spokenLevel = level;
    const text = `${doc.state.text}. ${doc.forecast ? doc.forecast.text : ""} ${doc.health.length ? doc.health[0].text : ""}`;
    if (id("spoken").textContent !== text) id("spoken").textContent = text;
  }
  function merge(news) {
    const { patch, ...others } = news;
    Object.assign(doc, others);
    for (const [at, piece] of patch || []) doc.cells = doc.cells.slice(0, at) + piece + doc.cells.slice(at + piece.length);
    if (patch) known.clear();
  }
  function states() {
    const select = id("table-state");
    if (select.options.length > 1) return;
    for (const state of doc.legend) if (state.letter !== "w") select.append(make("option", state.name, { value: state.letter }));
  }
  function listen() {
    const source = new EventSource("events");
    source.onmessage = event => {
      merge(JSON.parse(event.data));
      states(); draw();
      document.documentElement.dataset.ready = "live";
    };
    source.onerror = () => {
      id("state").textContent = "The page's server does not answer: the figures are old.";
      id("state").dataset.level = "bad";
    };
  }

  readTones();
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { readTones(); draw(); });
  window.addEventListener("resize", draw);
  const map = id("map");
  map.addEventListener("keydown", walk);
  map.addEventListener("focus", () => { drawMap(); describeCursor(); });
  map.addEventListener("blur", () => drawMap());
  map.addEventListener("pointermove", event => {
    if (!boxes || event.pointerType === "touch") return;
    const slot = slotAt(event);
    if (slot !== null && slot !== view.cursor) { view.cursor = slot; view.pointed = true; drawMap(); describeCursor(); }
  });
  map.addEventListener("pointerleave", () => { view.pointed = false; drawMap(); });
  map.addEventListener("click", event => {
    if (!boxes) return;
    const slot = slotAt(event);
    if (slot === null) return;
    view.cursor = slot;
    if (boxes.per > 1) open(); else { drawMap(); describeCursor(); }
  });
  id("table-show").addEventListener("click", () => showTable(Number(id("table-from").value) || 0));
  id("table-next").addEventListener("click", () => showTable(Number(id("table-from").dataset.next || 0)));
  id("table-form").addEventListener("submit", event => { event.preventDefault(); showTable(Number(id("table-from").value) || 0); });
  id("table-state").addEventListener("change", () => showTable(0));
  id("table-details").addEventListener("toggle", () => { if (id("table-details").open) showTable(Number(id("table-from").value) || 0); });
  if (frozen) { merge(frozen.document); states(); draw(); document.documentElement.dataset.ready = "frozen"; }
  else listen();
})();
