// For a site that is opened from a folder; on one that comes from a server this does nothing.
// Search: browsers run no Worker there, so a hidden frame takes its place.
// Links to feeds: the theme looks them up in the sitemap, which cannot be read there.
if (location.protocol === "file:") {
  const head = new MutationObserver(() => {
    for (const link of document.head.querySelectorAll("link[rel=alternate]")) link.remove();
  });
  head.observe(document.head, { childList: true });
  addEventListener("DOMContentLoaded", () => head.disconnect());
  const add = (page, url) => new Promise((done) => {
    const script = page.createElement("script");
    script.src = url;
    script.onload = script.onerror = done;
    page.body.append(script);
  });
  window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      const frame = document.createElement("iframe");
      frame.hidden = true;
      document.body.append(frame);
      const inside = frame.contentWindow;
      const post = inside.postMessage.bind(inside);
      // What the script posts is for this page; what this page posts, for the script.
      inside.postMessage = (data) => this.dispatchEvent(new MessageEvent("message", { data }));
      inside.importScripts = (...urls) =>
        urls.reduce((before, next) => before.then(() => add(frame.contentDocument, next)), Promise.resolve());
      const loaded = add(frame.contentDocument, url);
      this.postMessage = (data) => { loaded.then(() => post(data, "*")); };
      this.terminate = () => frame.remove();
    }
  };
}
