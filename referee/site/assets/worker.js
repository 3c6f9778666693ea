// Search when the site is opened from a folder: browsers run no Worker there, so a hidden frame takes its place.
// On a site that comes from a server this does nothing.
if (location.protocol === "file:") {
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
