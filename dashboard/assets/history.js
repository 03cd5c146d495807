// What a person does makes at most one step of the browser's history, and Back undoes one step.
//
// Streamlit replaces the address when a control is changed, so that Back would skip what was chosen; it adds steps when
// the server changes the address, of which there can be several after one click (a page that is left takes its own
// values out first). Here the first change of the address after a key or a press adds a step, and those that follow it
// change that step. What nobody did, such as a default that is dropped from a link, adds none.
{
  let acted = false;
  const act = (event) => { if (!event.repeat) acted = true; };
  for (const kind of ["pointerdown", "keydown"]) window.addEventListener(kind, act, {capture: true});
  window.addEventListener("popstate", () => { acted = false; }, {capture: true});
  const {pushState, replaceState} = History.prototype;
  const step = function (state, title, address) {
    const changes = new URL(address, location.href).href !== location.href;
    const write = changes && acted ? pushState : replaceState;
    if (changes) acted = false;
    write.call(this, state, title, address);
  };
  History.prototype.pushState = History.prototype.replaceState = step;
}
