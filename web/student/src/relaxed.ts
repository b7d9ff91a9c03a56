// Whether this browser has relaxed SIMD, whose multiply-add makes updates twice as fast; an engine is there with and without.

/** The smallest module that has a relaxed multiply-add. */
const RELAXED = Uint8Array.of(
  ...[0, 0x61, 0x73, 0x6d, 1, 0, 0, 0],
  // One type, a function without parameters that returns a vector, and one function of this type.
  ...[1, 5, 1, 0x60, 0, 1, 0x7b],
  ...[3, 2, 1, 0],
  // Its body: three times i32.const 0, i8x16.splat, then f32x4.relaxed_madd and the end.
  ...[10, 19, 1, 17, 0, 0x41, 0, 0xfd, 15, 0x41, 0, 0xfd, 15, 0x41, 0, 0xfd, 15, 0xfd, 0x85, 2, 0x0b],
);

/** Whether a module with relaxed SIMD can be loaded here. */
export const hasRelaxedSimd = (): boolean => WebAssembly.validate(RELAXED);
