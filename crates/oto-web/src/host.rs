//! What a worker has of the browser: a clock, timers, randomness, and a console for faults of our own.

use wasm_bindgen::{JsCast, UnwrapThrowExt};
use web_sys::{Performance, WorkerGlobalScope};

thread_local! {
    static PERFORMANCE: Option<Performance> = scope().performance();
}

/// The worker's global scope.
pub fn scope() -> WorkerGlobalScope {
    js_sys::global().unchecked_into()
}

/// Lets the worker's other events have their turn.
#[cfg(feature = "webgpu")]
pub async fn pause() {
    let soon = js_sys::Promise::new(&mut |resolve, _| {
        // A page's worker has timers.
        let _ = scope().set_timeout_with_callback(&resolve);
    });
    // A promise that is only ever resolved.
    let _ = wasm_bindgen_futures::JsFuture::from(soon).await;
}

/// Milliseconds since the worker began, to fractions of one; never runs backwards.
pub fn now() -> f64 {
    PERFORMANCE.with(|clock| clock.as_ref().map_or(0.0, Performance::now))
}

/// The same in whole milliseconds, as links and stages count.
pub fn now_ms() -> u64 {
    now() as u64
}

/// 128 bits of the browser's randomness.
pub fn random() -> u128 {
    let mut bytes = [0; 16];
    let crypto = scope().crypto().unwrap_throw();
    crypto.get_random_values_with_u8_array(&mut bytes).unwrap_throw();
    u128::from_le_bytes(bytes)
}

/// Lets a panic, which is a fault of oto's own, say on the console where it happened.
pub fn report_panics() {
    std::panic::set_hook(Box::new(|panic| web_sys::console::error_1(&format!("oto: {panic}").into())));
}
