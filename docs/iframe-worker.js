// Browsers start no worker for a page opened from disk: run the worker of the search in a hidden frame instead.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      const frame = document.createElement("iframe");
      frame.hidden = true;
      document.body.append(frame);
      const inner = frame.contentDocument;
      inner.open();
      frame.contentWindow.postMessage = data => this.dispatchEvent(new MessageEvent("message", { data }));
      inner.write(`<script src="${url}"></script>`);
      inner.close();
      this.loaded = new Promise(resolve => (frame.onload = () => resolve(frame.contentWindow)));
    }
    async postMessage(data) {
      (await this.loaded).dispatchEvent(new MessageEvent("message", { data }));
    }
  };
}
