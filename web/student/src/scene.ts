// What a student's play looks like, moment by moment (`crates/oto-agent/src/watch.rs`).

/** A moment of an episode. */
export interface Scene {
  /**
   * The environment's state. CartPole: position (m), velocity (m/s), angle (rad), angular velocity (rad/s); Pendulum: angle
   * (rad, 0 is up, counter-clockwise), angular velocity (rad/s); the others as the engine documents them.
   */
  state: number[];
  /** Steps so far, and their limit. */
  step: number;
  limit: number | null;
  /**
   * The training steps of the episode's policy, which is fixed for the episode. Null in the page's own environment: there
   * the policy continues to learn.
   */
  trained: number | null;
  /** The last action: the choice, or a vector's components in the environment's units; empty before the first step. */
  action: number[];
  /** The reward of this step. */
  reward: number;
  /** The sum of all rewards so far. */
  return: number;
  /** Whether the episode has ended. */
  over: boolean;
  /** The map, in cell selection. */
  map: CellMap | null;
}

/** A device among base stations. Positions are x and y in metres. */
export interface CellMap {
  position: [x: number, y: number];
  /** The device's destination; its position if it has none. */
  waypoint: [x: number, y: number];
  /** The utility of the last step, from -1 to 1. */
  utility: number;
  /** The stations, in the order of the actions. */
  stations: MapStation[];
}

/** A base station, from the device's view. */
export interface MapStation {
  position: [x: number, y: number];
  /** Its signal-to-noise ratio above a connection's minimum, in dB; below 0 the station is out of range. */
  margin: number;
  /** The range of a connection, and the range of a signal 10 dB above a connection's minimum, in metres. */
  reach: number;
  near: number;
  /** Whether the device is connected to it. */
  connected: boolean;
}
