// What a student's play looks like, moment by moment. The engine writes JSON in its own spelling; here it gets JavaScript's.

/** A moment of an episode. */
export interface Scene {
  /**
   * The environment's state. CartPole: position (m), velocity (m/s), angle (rad), angular velocity (rad/s); Pendulum: angle
   * (rad, 0 is up, counter-clockwise), angular velocity (rad/s); the others as the engine documents them.
   */
  state: number[];
  /** Steps so far, and at most. */
  step: number;
  limit: number | null;
  /**
   * The environment steps of training that the episode's policy has behind it, which is frozen for the episode; null in an environment
   * of the page's own, where the policy goes on learning meanwhile.
   */
  trained: number | null;
  /** What was done last: the choice, or a vector's components in the environment's units; empty before the first step. */
  action: number[];
  /** What that step was rewarded with. */
  reward: number;
  /** All rewards so far. */
  return: number;
  /** Whether the episode has ended. */
  over: boolean;
  /** The map, in cell selection. */
  map: CellMap | null;
}

/** A device among base stations. Positions are x and y in metres. */
export interface CellMap {
  position: [x: number, y: number];
  /** Where the device walks to; its position while that is not decided. */
  waypoint: [x: number, y: number];
  /** The utility of the last step, from -1 to 1. */
  utility: number;
  /** The stations, in the order of the actions. */
  stations: MapStation[];
}

/** A base station, as the device has it now. */
export interface MapStation {
  position: [x: number, y: number];
  /** Its signal-to-noise ratio above the smallest that a connection may have, in dB; below 0 it is out of range. */
  margin: number;
  /** How far it can be connected to, and up to where its signal is 10 dB stronger than that, in metres. */
  reach: number;
  near: number;
  /** Whether the device is connected to it. */
  connected: boolean;
}
