// A list of numbers with their labels, below a picture.

/** Shows these entries in a `dl`. Only texts that differ are changed, so that a reader of the page is not disturbed. */
export function showFigures(list: Element, figures: string[][]): void {
  while (list.children.length > figures.length) list.lastElementChild!.remove();
  figures.forEach((texts, index) => {
    if (list.children[index] === undefined) list.append(pair());
    const entry = list.children[index]!.children;
    texts.forEach((text, i) => {
      if (entry[i]!.textContent !== text) entry[i]!.textContent = text;
    });
  });
}

/** An empty entry. */
function pair(): HTMLElement {
  const entry = document.createElement('div');
  entry.append(document.createElement('dt'), document.createElement('dd'));
  return entry;
}
