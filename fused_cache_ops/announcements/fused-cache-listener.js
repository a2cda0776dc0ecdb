// Has an open map draw changed tiles anew, without a reload of the page: an ES module without dependencies.
// It reads the document that an invalidation with `announce` writes, and asks for the tiles that changed, past the
// browser's cache and under the same addresses. How to use it: "Open maps" in the documentation of fused-cache-ops.

/** MapLibre GL JS 5.5 or later: raster and vector sources. Call it right after `new Map(…)`. `options` may have the map's own
 * `transformRequest`, and what `listen` takes. Returns `{stop()}`, as the others do. */
export function listenForMapLibre(map, source, url, options = {}) {
  if (!map.refreshTiles) throw new TypeError("fused-cache-listener: a map without refreshTiles: use MapLibre GL JS 5.5 or later.");
  const tiles = new Tiles(options);
  const found = () => map.style && map.getSource(source);
  const ask = (address) => {
    const tile = tileAt(address, found());
    return tile !== undefined && tiles.ask(tile);
  };
  const hook = hooks.get(map) ?? { asks: new Set() };
  hooks.set(map, hook);
  hook.asks.add(ask);
  hook.transformRequest = options.transformRequest ?? hook.transformRequest;
  map.setTransformRequest((address, type) => {
    const request = hook.transformRequest?.(address, type);
    if (type !== "Tile" || [...hook.asks].filter((each) => each(address)).length === 0) return request;
    if (request?.then) return request.then((given) => ({ url: address, ...given, cache: "reload" }));
    return { url: address, ...request, cache: "reload" };
  });
  // Tiles that are out of view, or that are loading for the first time, are skipped by refreshTiles: so again when idle.
  const refresh = () => {
    if (tiles.stale.size && found()) map.refreshTiles(source, [...tiles.stale].map(indexOf));
  };
  const load = ({ sourceId, tile }) => {
    if (sourceId === source && tile?.state === "loaded") tiles.done(nameOf(tile.tileID.canonical));
  };
  const fail = ({ sourceId, tile }) => {
    if (sourceId === source && tile) tiles.fail(nameOf(tile.tileID.canonical));
  };
  const handlers = { idle: refresh, sourcedata: load, error: fail };
  for (const [event, handler] of Object.entries(handlers)) map.on(event, handler);
  if (found()) map.refreshTiles(source); // called late: which tiles there are is not known
  const listening = listen(url, (changes) => (tiles.hear(changes), refresh()), options);
  listening.signal.addEventListener("abort", () => {
    for (const [event, handler] of Object.entries(handlers)) map.off(event, handler);
    hook.asks.delete(ask);
  });
  map.once("remove", listening.stop);
  return listening;
}

const hooks = new WeakMap(); // a map has one transformRequest for all of its sources

/** Leaflet 1.9: an `L.TileLayer`. Call it before the layer is added to the map. */
export function listenForLeaflet(layer, url, options = {}) {
  const tiles = new Tiles(options);
  const shown = new Map(); // by element, because a tile may be shown in several copies of the world
  const renewing = new Set();
  async function renew(tile) {
    const imagesOf = () => [...shown].filter(([, each]) => each.tile === tile);
    if (renewing.has(tile)) return;
    renewing.add(tile);
    try {
      while (imagesOf().length && tiles.ask(tile)) { // again, if it changes in the meantime
        const [[image, { address }]] = imagesOf();
        // As the image itself is asked for, so that its entry in the browser's cache is the one that is renewed.
        const mode = image.crossOrigin === null ? "no-cors" : "cors";
        const credentials = image.crossOrigin === "anonymous" ? "same-origin" : "include";
        const response = await fetch(address, { cache: "reload", mode, credentials });
        if (!response.ok && response.type !== "opaque") throw new Error(response.statusText);
        await response.blob(); // to its end, or it would not be stored
        tiles.done(tile);
        for (const [image] of imagesOf()) {
          image.src = ""; // the same address alone would show the same picture
          image.src = address;
        }
      }
    } catch {
      tiles.fail(tile);
    } finally {
      renewing.delete(tile);
    }
  }
  const add = ({ tile: image, coords: { x, y, z } }) => {
    const tile = nameOf({ z: z + (layer.options.zoomOffset || 0), x, y });
    shown.set(image, { tile, address: image.src });
    if (tiles.asks(tile)) renew(tile);
    else tiles.ask(tile);
  };
  const remove = ({ tile: image }) => shown.delete(image);
  const fail = ({ tile: image }) => shown.has(image) && tiles.fail(shown.get(image).tile);
  const handlers = { tileloadstart: add, tileunload: remove, tileerror: fail };
  layer.on(handlers);
  if (layer.getContainer()) layer.redraw(); // called late: which tiles there are is not known
  const hear = (changes) => {
    tiles.hear(changes);
    for (const tile of tiles.stale) renew(tile);
  };
  const listening = listen(url, hear, options);
  listening.signal.addEventListener("abort", () => layer.off(handlers));
  return listening;
}

/** OpenLayers 10: an `XYZ` source, drawn by a layer of class `Tile` or `WebGLTile`. Its server has to allow the page's origin. */
export function listenForOpenLayers(source, url, options = {}) {
  const tiles = new Tiles(options);
  const load = source.getTileLoadFunction();
  let count = 0;
  const redraw = () => source.setKey(`${url} ${count++}`); // old tiles stay until the new ones are there
  source.setTileLoadFunction(async (tile, address) => {
    const [z, x, y] = tile.getTileCoord();
    const name = nameOf({ z, x, y });
    const image = tile.getImage();
    const cache = tiles.ask(name) ? "reload" : "default";
    try {
      const response = await fetch(address, { cache });
      if (!response.ok) throw new Error(response.statusText);
      const object = URL.createObjectURL(await response.blob());
      tiles.done(name);
      image.addEventListener("load", () => URL.revokeObjectURL(object), { once: true });
      image.src = object; // not the address, for which the page may have an old picture in its memory
    } catch {
      if (cache === "reload") tiles.fail(name);
      if (tile.getState() === 1) tile.setState(3); // loading, which has failed
    }
  });
  redraw(); // which tiles there are is not known
  const listening = listen(url, (changes) => tiles.hear(changes) && redraw(), options);
  listening.signal.addEventListener("abort", () => source.setTileLoadFunction(load));
  return listening;
}

/** For any other library: look at the document again and again, while the page is shown.
 *
 * `hear` is called after each look, with the changes that this page has not seen, newest first: most often with none.
 * `interval`: seconds between two looks. `maxAge`: for how many seconds browsers may keep a tile (`max-age` of its
 * Cache-Control). `signal`: an AbortSignal that stops it, as `stop()` of the returned handle does.
 */
export function listen(url, hear, { interval = 10, maxAge = MAX_AGE, signal } = {}) {
  const ended = new AbortController();
  const stop = () => ended.abort();
  let known, timer, looking = false, failures = 0, warned = false;
  async function look() {
    clearTimeout(timer);
    if (looking || document.hidden || ended.signal.aborted) return;
    looking = true;
    let changes;
    try {
      // The browser sends If-None-Match itself. If a page did, it would cost a preflight request at another origin.
      const waiting = AbortSignal.any([ended.signal, AbortSignal.timeout(30_000)]);
      const response = await fetch(url, { cache: "no-cache", signal: waiting });
      if (!response.ok) throw new Error(`it was answered with ${response.status}`, { cause: response.status });
      const announced = checked(await response.json());
      const found = unseen(announced, known, known ? 0 : beginning(announced, response.headers, maxAge));
      if (found) known = announced.changes[0];
      [changes, failures, warned] = [found ?? [], 0, false];
    } catch (error) {
      if (ended.signal.aborted) return;
      failures = [403, 404].includes(error.cause) ? 0 : failures + 1; // stores say so until the first announcement
      if (!warned) console.warn(`fused-cache-listener: ${url} cannot be read, and is tried again: ${error.message}`);
      warned = true;
    } finally {
      looking = false;
    }
    timer = setTimeout(look, 1000 * Math.min(interval * 2 ** failures, Math.max(interval, 600)) * (0.9 + Math.random() / 5));
    if (changes) hear(changes);
  }
  signal?.addEventListener("abort", stop);
  if (signal?.aborted) stop();
  document.addEventListener("visibilitychange", look, { signal: ended.signal });
  ended.signal.addEventListener("abort", () => clearTimeout(timer));
  look();
  return { stop, signal: ended.signal };
}

const MAX_AGE = 3600;

function checked(announced) {
  const { changes } = announced;
  if (!Array.isArray(changes) || !changes.length || !changes.every((change) => Number.isSafeInteger(change?.version))) {
    throw new Error("it is not a document of announcements");
  }
  return announced;
}

/** The changes that a page has not seen, which knows the change `known`. Nothing, if this is an older copy of the document. */
function unseen({ changes }, known, begun) {
  const [newest, oldest] = [changes[0], changes.at(-1)];
  if (!known) {
    const recent = changes.filter(({ at }) => !(Date.parse(at) < begun));
    return recent.length === changes.length && oldest.version > 1 && begun ? [EVERYTHING] : recent;
  }
  if (newest.version < known.version) return Date.parse(newest.at) > Date.parse(known.at) ? [EVERYTHING] : undefined;
  const same = changes.find(({ version }) => version === known.version);
  const lost = same ? same.at !== known.at : oldest.version > known.version + 1;
  return lost ? [EVERYTHING] : changes.filter(({ version }) => version > known.version);
}

const EVERYTHING = { everything: true };

/** When the oldest tile was made that this page may show, on the clock of who announces: when the page began to load, less what
 * the browser may have kept. The server says how long ago the newest change was announced. NaN, if it does not say the time. */
function beginning({ changes }, headers, maxAge) {
  const [now, written] = ["date", "last-modified"].map((name) => Date.parse(headers.get(name)));
  const there = written ? Date.parse(changes[0].at) + now - written : now;
  const age = Math.max(performance.now(), Date.now() - performance.timeOrigin); // the first may not count while a machine sleeps
  return there - age - 1000 * maxAge - 2000; // the headers are rounded to seconds
}

/** Which tiles a map has to ask for anew. */
class Tiles {
  asked = new Set();
  stale = new Set(); // of those that were asked for
  #coming = new Set(); // asked for: until they are there, the browser may have kept the old ones
  #failed = new Set();
  #tries = new Map();
  #changes = [];

  constructor({ maxAge = MAX_AGE }) {
    this.maxAge = maxAge;
  }

  /** Whether a tile that is wanted has to be asked for past the browser's cache. */
  asks(tile) {
    if (this.stale.has(tile) || this.#coming.has(tile)) return true;
    return !this.asked.has(tile) && this.#changes.some(({ holds }) => holds(indexOf(tile)));
  }

  /** The same, of a tile that is asked for now. */
  ask(tile) {
    const anew = this.asks(tile);
    this.asked.add(tile);
    this.stale.delete(tile);
    if (anew) {
      this.#coming.add(tile);
      this.#tries.set(tile, (this.#tries.get(tile) ?? 0) + 1);
    }
    return anew;
  }

  /** It was loaded. A map that leaves a tile while it is asked for drops it, so until then nothing is certain. */
  done(tile) {
    this.#coming.delete(tile);
  }

  /** A changed tile could not be loaded: to be asked for again after the next look, a few times. */
  fail(tile) {
    if (this.#tries.get(tile) <= 5) this.#failed.add(tile);
  }

  /** Take note of changes. Returns whether there are new tiles to be asked for. */
  hear(changes) {
    const now = performance.now();
    const heard = changes.map((change) => ({ holds: holder(change), until: now + 1000 * this.maxAge }));
    // What browsers do not keep as long needs no longer be remembered.
    this.#changes = [...this.#changes.filter(({ until }) => until > now), ...heard];
    const again = [...this.asked].filter((tile) => heard.some(({ holds }) => holds(indexOf(tile))));
    for (const tile of again) this.#tries.delete(tile);
    const found = [...again, ...this.#failed];
    this.#failed.clear();
    for (const tile of found) this.stale.add(tile);
    return found.length > 0;
  }
}

/** Whether a tile is one of those that changed. What cannot be understood holds every tile. */
function holder({ tiles, ranges, everything, zooms, bounds }) {
  if (everything !== true && Array.isArray(tiles)) {
    const named = new Set(tiles);
    return (tile) => named.has(nameOf(tile));
  }
  if (everything !== true && Array.isArray(ranges)) {
    return ({ z, x, y }) => ranges.some((each) => each.z === z && within(x, each.x) && within(y, each.y));
  }
  return ({ z, x, y }) => (!zooms || within(z, zooms)) && (!bounds || meets(bounds, 2 ** z, x, y));
}

const within = (number, [lowest, highest]) => !(number < lowest) && !(number > highest);

function meets([west, south, east, north], width, x, y) {
  const column = (longitude) => ((longitude + 180) / 360) * width;
  const row = (latitude) => (0.5 - Math.atanh(Math.sin((latitude * Math.PI) / 180)) / (2 * Math.PI)) * width;
  const [afterWest, beforeEast] = [!(x + 1 < column(west)), !(x > column(east))];
  return (west > east ? afterWest || beforeEast : afterWest && beforeEast) && !(y + 1 < row(north)) && !(y > row(south));
}

function nameOf({ z, x, y }) {
  const width = 2 ** z;
  return `${z}/${((x % width) + width) % width}/${y}`;
}

function indexOf(name) {
  const [z, x, y] = name.split("/").map(Number);
  return { z, x, y };
}

/** The tile that an address of a MapLibre source is of. */
function tileAt(address, source) {
  for (const template of source?.tiles ?? []) {
    const seen = new Set();
    const parts = template.split(/\{([\w-]+)\}/).map((part, place) => {
      if (place % 2 === 0) return part.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
      if (!"zxy".includes(part)) return ".*?";
      return seen.has(part) ? "\\d+" : (seen.add(part), `(?<${part}>\\d+)`);
    });
    const { z, x, y } = new RegExp(`^${parts.join("")}$`).exec(address)?.groups ?? {};
    if (y !== undefined) return nameOf({ z: Number(z), x: Number(x), y: source.scheme === "tms" ? 2 ** z - 1 - y : Number(y) });
  }
  return undefined;
}
