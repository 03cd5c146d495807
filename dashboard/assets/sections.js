// Streamlit puts the sections of its navigation between a list and its items, where nothing may stand: screen readers
// then cannot tell what belongs to the list. Instead each section is a group with the name that stands above it.
{
  const items = "[data-testid=stSidebarNavItems]";
  const unmarked = `${items}:not([role]), ${items} li:not([role]), ${items} > div:not([role])`;
  const mark = () => {
    for (const part of document.querySelectorAll(unmarked)) {
      const header = part.querySelector(":scope > [data-testid=stNavSectionHeader] p");
      part.setAttribute("role", header ? "group" : "none");
      if (header) part.setAttribute("aria-label", header.textContent);
    }
  };
  new MutationObserver(mark).observe(document, {childList: true, subtree: true});
}
