// On a phone the sidebar lies over the page: it closes once a page has been chosen in it.
document.addEventListener("click", (event) => {
  if (innerWidth > 768 || !event.target.closest("[data-testid=stSidebarNav] a")) return;
  setTimeout(() => document.querySelector("[data-testid=stSidebarCollapseButton] button")?.click());
});
