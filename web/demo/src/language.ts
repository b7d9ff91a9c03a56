// uPlot makes a number format for the browser's language while it loads, and does not load where that is no language: WebKitGTK in
// the locale C.UTF-8 calls it "C". This module gives such a browser the language of its default locale, before uPlot loads.

if (!isLanguage(navigator.language)) {
  const { locale } = new Intl.NumberFormat().resolvedOptions();
  Object.defineProperty(navigator, 'language', { value: locale, configurable: true });
}

function isLanguage(tag: string): boolean {
  try {
    return Intl.NumberFormat.supportedLocalesOf(tag) !== undefined;
  } catch {
    return false;
  }
}
