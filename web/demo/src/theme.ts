// Light paper or dark board: the system's choice until the button says otherwise; remembered in this browser.

const KEY = 'oto-theme';

/** The choice, where the browser does not let it be kept. */
let unkept: string | null = null;

function remembered(): string | null {
  try {
    return localStorage.getItem(KEY) ?? unkept;
  } catch {
    return unkept;
  }
}

function remember(theme: string): void {
  unkept = theme;
  try {
    localStorage.setItem(KEY, theme);
  } catch {
    // It holds for this visit.
  }
}

/** Wires the button, and calls `changed` whenever the colours have changed. */
export function setUpTheme(button: HTMLButtonElement, changed: () => void): void {
  const system = matchMedia('(prefers-color-scheme: dark)');
  const isDark = () => (remembered() ?? (system.matches ? 'dark' : 'light')) === 'dark';
  const apply = () => {
    const dark = isDark();
    document.documentElement.dataset['theme'] = dark ? 'dark' : 'light';
    button.textContent = dark ? 'Light' : 'Dark';
    button.setAttribute('aria-label', `Use the ${dark ? 'light' : 'dark'} theme`);
    changed();
  };
  button.addEventListener('click', () => {
    remember(isDark() ? 'light' : 'dark');
    apply();
  });
  system.addEventListener('change', apply);
  apply();
}
