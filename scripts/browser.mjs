// Drives the pages that scripts/browser serves, which starts this program.
import { createRequire } from "node:module";
import { join } from "node:path";

const [base, nodeModules, colorsText, target, only, ...wanted] = process.argv.slice(2);
const { chromium } = createRequire(join(nodeModules, "x.js"))("playwright-core");
const COLORS = JSON.parse(colorsText);
const PAGES = [
  "maplibre", "maplibre-vector", "maplibre-5", "maplibre-5-vector", "leaflet", "openlayers", "openlayers-webgl",
].filter((name) => !wanted.length || wanted.some((begin) => name.startsWith(begin)));

const tile = (x, y) => `10/${x}/${y}`;
const CENTER = [486, 392];
const CHANGED = tile(...CENTER);
const place = ([x, y]) => [((x + 0.5) / 1024) * 360 - 180, (Math.atan(Math.sinh(Math.PI * (1 - (2 * y + 1) / 1024))) * 180) / Math.PI];
const FAR = [506, 392]; // 20 tiles to the east

async function control(action, given = {}) {
  const response = await fetch(`${base}/control`, { method: "POST", body: JSON.stringify({ do: action, ...given }) });
  if (!response.ok) throw new Error(`${action}: ${response.status} ${await response.text()}`);
  return response.json();
}
const sleep = (seconds) => new Promise((resolve) => setTimeout(resolve, 1000 * seconds));

async function until(what, probe, seconds = 25) {
  const end = Date.now() + 1000 * seconds;
  let seen;
  do {
    seen = await probe();
    if (seen === true) return;
    await sleep(0.05);
  } while (Date.now() < end);
  throw new Error(`never: ${what}, but ${JSON.stringify(seen)}`);
}
function same(what, found, expected) {
  const [left, right] = [found, expected].map((each) => JSON.stringify([...each].sort()));
  if (left !== right) throw new Error(`${what}: ${left} instead of ${right}`);
}

/** Which version of the data the middle of a tile shows on the screen. */
async function shown(page, [x, y]) {
  const [left, top] = await page.evaluate(([lng, lat]) => window.place(lng, lat), place([x, y]));
  const png = await page.screenshot();
  const [r, g, b] = await page.evaluate(async ([data, left, top]) => {
    const bitmap = await createImageBitmap(await (await fetch(`data:image/png;base64,${data}`)).blob());
    const context = new OffscreenCanvas(bitmap.width, bitmap.height).getContext("2d");
    context.drawImage(bitmap, 0, 0);
    return [...context.getImageData(left, top, 1, 1).data];
  }, [png.toString("base64"), Math.round(left) + 20, Math.round(top) + 20]);
  const found = COLORS.findIndex((color) => Math.abs(color[0] - r) + Math.abs(color[1] - g) + Math.abs(color[2] - b) < 30);
  return found === -1 ? `rgb ${r} ${g} ${b}` : found;
}
const shows = (page, where, version) =>
  until(`${where} shows version ${version}`, async () => {
    const found = await shown(page, where);
    return found === version || `shows ${found}`;
  });

/** The tiles that the server was asked for, once nothing is under way any more. */
async function asked(udf) {
  let last = "";
  await until("quiet", async () => {
    const now = JSON.stringify(await control("requests").then(({ tiles, under_way }) => [tiles, under_way]));
    const calm = now === last && now.endsWith(",0]");
    last = now;
    await sleep(0.7);
    return calm || "requests go on";
  });
  return (await control("requests")).tiles[udf];
}
const looked = (count = 2) => // the document was read so often since now
  control("requests").then(({ documents }) =>
    until(`${count} looks`, async () => (await control("requests")).documents.length >= documents.length + count || "no look"));

const hide = (page, hidden) =>
  page.evaluate((hidden) => {
    Object.defineProperty(document, "hidden", { configurable: true, get: () => hidden });
    document.dispatchEvent(new Event("visibilitychange"));
  }, hidden);

const SCENARIOS = {
  async "a tile in view"({ page, udf }) {
    await control("load", { tiles: [CHANGED] });
    await looked();
    same("before the step", await asked(udf), []);
    await shows(page, CENTER, 0);
    await control("step", { tiles: [CHANGED] });
    const began = Date.now();
    await shows(page, CENTER, 1);
    const seconds = (Date.now() - began) / 1000;
    same("asked for", await asked(udf), [CHANGED]);
    await shows(page, [485, 392], 0);
    await control("forget");
    await control("load", { tiles: [tile(485, 392)] });
    await control("step", { tiles: [tile(485, 392)] });
    await shows(page, [485, 392], 1);
    await shows(page, CENTER, 1); // and stays so
    same("asked for", await asked(udf), [tile(485, 392)]);
    return `fresh on the screen ${seconds.toFixed(2)} s after the step (a look every 0.3 s)`;
  },
  async "a tile out of view"({ page, udf, loaded }) {
    await page.evaluate(([lng, lat]) => window.go(lng, lat), place(FAR));
    await shows(page, FAR, 0);
    await asked(udf);
    await control("forget");
    await control("load", { tiles: [CHANGED] });
    await control("step", { tiles: [CHANGED] });
    await looked();
    const idles = await page.evaluate(() => window.idles);
    await sleep(1);
    if ((await page.evaluate(() => window.idles)) > idles + 1) throw new Error("the map does not come to rest");
    same("while it is out of view", await asked(udf), []);
    await control("hold_documents"); // not the next look, but the map itself has the tile asked for
    await page.evaluate(([lng, lat]) => window.go(lng, lat), place(CENTER));
    await shows(page, CENTER, 1);
    same("asked for once more", (await asked(udf)).filter((each) => loaded.has(each)), [CHANGED]);
  },
  async "a tile that was never in view"({ page, udf }) {
    await control("load", { tiles: [tile(...FAR)] });
    await control("step", { tiles: [tile(...FAR)] });
    await looked();
    same("before it is in view", await asked(udf), []);
    await page.evaluate(([lng, lat]) => window.go(lng, lat), place(FAR));
    await shows(page, FAR, 1);
    const found = await asked(udf);
    same("asked for", found, new Set(found));
  },
  "a tile whose first load is under way": {
    begin: () => control("hold", { tile: CHANGED }),
    quick: true,
    async run({ page, udf }) {
      await shows(page, [485, 392], 0);
      await until("it is asked for", async () => (await control("requests")).under_way > 0 || "not yet");
      await looked();
      await control("load", { tiles: [CHANGED] });
      await control("step", { tiles: [CHANGED] });
      await looked();
      await control("hold_documents");
      await control("release", { documents: false });
      await shows(page, CENTER, 1);
      await sleep(1);
      await shows(page, CENTER, 1);
      const found = await asked(udf);
      if (found.filter((each) => each === CHANGED).length > 2) throw new Error(`asked for ${found}`);
    },
  },
  async "a map that slept through three announcements"({ page, udf }) {
    await hide(page, true);
    await sleep(1);
    await control("forget");
    const changed = [CHANGED, tile(485, 392), tile(486, 391)];
    for (const each of changed) {
      await control("load", { tiles: [each] });
      await control("step", { tiles: [each] });
    }
    await sleep(1.5);
    const { documents } = await control("requests");
    if (documents.length) throw new Error(`looked while it was hidden: ${documents}`);
    await hide(page, false);
    for (const where of [CENTER, [485, 392], [486, 391]]) await shows(page, where, 1);
    same("asked for", await asked(udf), changed);
  },
  async "a map that missed more than the document holds"({ page, udf, loaded }) {
    await hide(page, true);
    await sleep(1);
    await control("load", { tiles: [CHANGED] });
    await control("step", { tiles: [CHANGED] });
    for (let count = 0; count < 55; count++) await control("announce", { change: { tiles: [tile(1, count)] } });
    await control("forget");
    await hide(page, false);
    await shows(page, CENTER, 1);
    const found = new Set(await asked(udf));
    if (!found.has(CHANGED) || !found.has(tile(485, 392)) || found.size > loaded.size) throw new Error(`asked for ${[...found]}`);
  },
  async "ranges, and everything within zooms and bounds"({ page, udf }) {
    await control("load", { tiles: [CHANGED, tile(485, 392)] });
    const [left, top] = place([484, 391.9]);
    const [right, bottom] = place([486, 392.1]);
    await control("step", { bounds: [left, bottom, right, top], zooms: "10-12" });
    await shows(page, CENTER, 1);
    await shows(page, [485, 392], 1);
    const { changes } = await control("read");
    if (!changes[0].ranges?.some(({ z, x: [from, to] }) => z === 10 && from === 484 && to === 486)) throw new Error("no ranges");
    const row = await asked(udf);
    if (row.some((each) => !each.endsWith("/392")) || row.length > 3) throw new Error(`asked for ${row}`);
    await control("forget");
    await control("load", { tiles: [CHANGED] });
    const [west, north] = place([486 - 0.2, 392 - 0.2]);
    const [east, south] = place([486 + 0.2, 392 + 0.2]);
    const bounds = [west, south, east, north];
    await control("step", { tiles: [CHANGED], change: { everything: true, zooms: [0, 9], bounds } });
    await looked();
    same("at other zooms", await asked(udf), []);
    await control("announce", { change: { everything: true, zooms: [9, 12], bounds } });
    await shows(page, CENTER, 2);
    same("asked for", await asked(udf), [CHANGED]);
  },
  async "a document that cannot be read, an older copy, and one that was made anew"({ page, udf }) {
    const before = await control("read");
    await control("announce", { change: { tiles: [tile(1, 1)] } });
    await looked();
    await control("document", { name: "roads", content: before }); // an older copy, as a CDN may have it
    await looked();
    same("for an older copy", await asked(udf), []);
    for (const content of ["<h1>Not found</h1>", "{}", '{"version": 3, "changes": []}', "null"]) {
      await control("document", { name: "roads", content });
      await sleep(0.5);
    }
    await control("load", { tiles: [CHANGED] });
    await control("step", { tiles: [CHANGED], silent: true });
    same("without a document", await asked(udf), []);
    const at = new Date().toISOString();
    const source = "<img src=x onerror=alert(1)>";
    await control("document", { name: "roads", content: { version: 1, at, source, changes: [{ version: 1, at, tiles: [source] }] } });
    await shows(page, CENTER, 1);
    const found = await asked(udf);
    if (!found.includes(CHANGED) || !found.includes(tile(485, 392))) throw new Error(`not everything was asked for: ${found}`);
    if (await page.evaluate(() => document.documentElement.innerHTML.includes("onerror"))) throw new Error("markup in the page");
  },
  "an announcement between the tiles and the first look": {
    begin: () => control("hold_documents"),
    async run({ page, udf }) {
      await control("load", { tiles: [CHANGED] });
      await control("step", { tiles: [CHANGED] });
      await sleep(0.5);
      same("before the first look", await asked(udf), []);
      await control("release");
      await shows(page, CENTER, 1);
      same("asked for", await asked(udf), [CHANGED]);
    },
  },
  "a writer whose clock is two hours behind": {
    begin: () => control("hold_documents"),
    async run({ page, udf }) {
      await control("load", { tiles: [CHANGED] });
      await control("step", { tiles: [CHANGED], silent: true });
      const [at, before] = [2, 5].map((hours) => new Date(Date.now() - hours * 3_600_000).toISOString());
      const changes = [{ version: 9, at, tiles: [CHANGED] }, { version: 8, at: before, tiles: [tile(485, 392)] }];
      await control("document", { name: "roads", content: { version: 9, at, source: "roads", changes } });
      await control("release");
      await shows(page, CENTER, 1);
      same("asked for", await asked(udf), [CHANGED]);
    },
  },
  async "a page that is opened again, with old tiles in the browser's cache"({ page, udf, name }) {
    await page.goto("about:blank");
    await control("load", { tiles: [CHANGED] });
    await control("step", { tiles: [CHANGED] });
    await control("forget");
    await page.goto(`${base}/pages/${name}`);
    await shows(page, CENTER, 1);
    same("asked for", await asked(udf), [CHANGED]);
  },
  "a document that is not there before the first announcement": {
    begin: () => control("document", { name: "roads", content: null }),
    async run({ page, udf }) {
      await control("forget");
      await sleep(3);
      const { documents } = await control("requests");
      if (documents.length < 4 || documents.some(([, status]) => status !== 404)) throw new Error(JSON.stringify(documents));
      await control("load", { tiles: [CHANGED] });
      await control("step", { tiles: [CHANGED] });
      await shows(page, CENTER, 1);
      same("asked for", await asked(udf), [CHANGED]);
    },
  },
  async "a server that fails when the tile is asked for"({ page, udf }) {
    await control("load", { tiles: [CHANGED] });
    await control("misbehave", { status: 500, times: 2, path: CHANGED, headers: { "access-control-allow-origin": "*" } });
    await control("step", { tiles: [CHANGED] });
    await shows(page, CENTER, 1);
    same("asked for", await asked(udf), [CHANGED, CHANGED, CHANGED]);
  },
  async "a tile that is left while it is asked for"({ page, udf }) {
    await control("load", { tiles: [CHANGED] });
    await control("misbehave", { latency: 4, times: 1, path: CHANGED });
    await control("step", { tiles: [CHANGED] });
    await until("it is asked for", async () => (await control("requests")).under_way > 0 || "not yet");
    await page.evaluate(([lng, lat]) => window.go(lng, lat), place(FAR));
    await shows(page, FAR, 0);
    await asked(udf);
    await page.evaluate(([lng, lat]) => window.go(lng, lat), place(CENTER));
    await shows(page, CENTER, 1);
  },
  async "a map that is told to stop"({ page, udf }) {
    await page.evaluate(() => window.listening.stop());
    await sleep(1);
    await control("forget");
    await control("load", { tiles: [CHANGED] });
    await control("step", { tiles: [CHANGED] });
    await sleep(1.5);
    const { documents } = await control("requests");
    if (documents.length) throw new Error(`looked: ${documents}`);
    same("asked for", await asked(udf), []);
    await shows(page, CENTER, 0);
  },
};

const LATE = {
  async "a map that was drawn before it is listened for"({ page, udf }) {
    await page.evaluate(() => window.listenLate());
    await looked();
    await asked(udf);
    await control("forget");
    await control("load", { tiles: [CHANGED] });
    await control("step", { tiles: [CHANGED] });
    await shows(page, CENTER, 1);
    same("asked for", await asked(udf), [CHANGED]);
  },
};

const UNCACHED = {
  "a tile that is left while it is asked for, by a map that keeps none": SCENARIOS["a tile that is left while it is asked for"],
  async "a tile out of view of a map that keeps none"({ page, udf, loaded }) {
    await SCENARIOS["a tile out of view"]({ page, udf, loaded });
  },
};

const STEPS = Object.fromEntries(
  ["command line", "airflow", "prefect", "dagster"].map((who) => [
    `a step of ${who}`,
    async ({ page, udf }) => {
      await control("load", { tiles: [CHANGED] });
      const began = Date.now();
      await control("step_of", { who, tile: CHANGED });
      const ended = Date.now();
      await shows(page, CENTER, 1);
      same("asked for", await asked(udf), [CHANGED]);
      return `its process took ${((ended - began) / 1000).toFixed(1)} s`;
    },
  ]),
);

const TWO = {
  async "two documents on a page"({ page }) {
    await control("load", { tiles: [CHANGED], name: "parcels" });
    await control("step", { tiles: [CHANGED], name: "parcels" });
    await until("parcels", async () => (await control("requests")).tiles.parcels.length === 1 || "not asked for");
    same("parcels", await asked("parcels"), [CHANGED]);
    same("roads", await asked("roads"), []);
    await control("forget");
    await control("load", { tiles: [tile(485, 392)] });
    await control("step", { tiles: [tile(485, 392)] });
    await until("roads", async () => (await control("requests")).tiles.roads.length === 1 || "not asked for");
    same("roads", await asked("roads"), [tile(485, 392)]);
    same("parcels", await asked("parcels"), []);
    await shows(page, [485, 392], 1);
  },
};

async function run(context, name, title, scenario) {
  const page = await context.newPage();
  page.on("pageerror", (error) => (page.failure = error.message));
  const udf = name.includes("vector") ? "vectors" : "roads";
  await control("begin");
  await scenario.begin?.();
  await page.goto(`${base}/pages/${name}`, { waitUntil: "domcontentloaded" });
  const loaded = new Set();
  if (!scenario.quick) {
    await shows(page, CENTER, 0);
    for (const each of await asked(udf)) loaded.add(each);
    await control("forget");
  }
  const note = await (scenario.run ?? scenario)({ page, udf, name, loaded });
  if (page.failure) throw new Error(page.failure);
  return note;
}

const FLAGS = [
  "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
  "--disable-component-update", "--disable-sync",
];
const browser = await chromium.launch({ executablePath: "/usr/bin/chromium", headless: true, args: FLAGS, timeout: 60_000 });
let failures = 0;

/** Pictures of the demonstration: before the step, and after it. */
async function takePictures() {
  const page = await browser.newPage({ viewport: { width: 860, height: 540 } });
  await page.goto(base);
  await page.waitForFunction(() => window.map?.areTilesLoaded());
  await page.click("#load");
  await page.waitForFunction(() => document.getElementById("said").textContent.startsWith("Loaded"));
  await sleep(3); // longer than it takes from the step to a fresh tile: the load alone changes nothing on the map
  const view = { clip: { x: 0, y: 0, width: 580, height: 540 } };
  const old = await page.screenshot(view);
  await page.screenshot({ path: join(target, "open-map-before.png") });
  const stepped = page.waitForResponse("**/step");
  await page.click("#step");
  await stepped;
  const began = Date.now();
  await until("the map changes", async () => !(await page.screenshot(view)).equals(old) || "as before");
  console.log(`The map changed ${((Date.now() - began) / 1000).toFixed(2)} s after the step had ended (a look every two seconds).`);
  await page.waitForFunction(() => document.getElementById("said").textContent.includes("no others"));
  await page.waitForFunction(() => window.map.areTilesLoaded());
  await sleep(1);
  await page.screenshot({ path: join(target, "open-map-after.png") });
  console.log(await page.textContent("#asked"));
}

try {
  if (target) await takePictures();
  for (const name of target ? [] : PAGES) {
    const all = [...Object.entries(SCENARIOS), ...Object.entries(LATE), ...Object.entries(name.startsWith("maplibre") ? UNCACHED : {}), ...Object.entries(name === "maplibre" ? { ...STEPS, ...TWO } : {})];
    for (const [title, scenario] of all) {
      if (!title.includes(only)) continue;
      const context = await browser.newContext({ viewport: { width: 1000, height: 1000 } });
      try {
        const note = await run(context, name + (title in LATE ? "-late" : title in TWO ? "-two" : title in UNCACHED ? "-uncached" : ""), title, scenario);
        console.log(`✓ ${name}: ${title}${note ? `: ${note}` : ""}`);
      } catch (error) {
        failures++;
        console.log(`✗ ${name}: ${title}: ${error.message}`);
      } finally {
        await context.close();
      }
    }
  }
} finally {
  await browser.close();
}
process.exit(failures ? 1 : 0);
