//! What the browser gives to every worker: a clock, and a console for faults of our own.

use wasm_bindgen::prelude::wasm_bindgen;

#[wasm_bindgen]
extern "C" {
    #[wasm_bindgen(js_namespace = performance, js_name = now)]
    fn performance_now() -> f64;

    #[wasm_bindgen(js_namespace = crypto, js_name = getRandomValues)]
    fn get_random_values(bytes: &mut [u8]);

    #[wasm_bindgen(js_namespace = console, js_name = error)]
    fn console_error(message: &str);
}

#[wasm_bindgen]
extern "C" {
    #[wasm_bindgen(js_name = setTimeout)]
    fn set_timeout(then: &js_sys::Function, milliseconds: i32);
}

/// Lets the worker's other events have their turn.
pub async fn pause() {
    let soon = js_sys::Promise::new(&mut |resolve, _| set_timeout(&resolve, 0));
    // A promise that is only ever resolved.
    let _ = wasm_bindgen_futures::JsFuture::from(soon).await;
}

/// Milliseconds since the worker began, to fractions of one; never runs backwards.
pub fn now() -> f64 {
    performance_now()
}

/// The same in whole milliseconds, as links and stages count.
pub fn now_ms() -> u64 {
    performance_now() as u64
}

/// 128 bits of the browser's randomness.
pub fn random() -> u128 {
    let mut bytes = [0; 16];
    get_random_values(&mut bytes);
    u128::from_le_bytes(bytes)
}

/// Lets a panic, which is a fault of oto's own, say on the console where it happened.
pub fn report_panics() {
    std::panic::set_hook(Box::new(|panic| console_error(&format!("oto: {panic}"))));
}
