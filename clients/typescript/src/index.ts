// A client of infotainer: publishes, subscribes and reads logs, over one connection that comes back by itself.

export { type Reconnect } from "./backoff.js";
export {
  Client,
  type ClientOptions,
  type Publishing,
  type PublishOptions,
  type QueueOptions,
  type SubscribeOptions,
} from "./client.js";
export type { Socket, SocketConstructor, Status, Token } from "./connection.js";
export {
  ClosedError,
  ConnectionError,
  type ConnectionErrorKind,
  RequestError,
  type RequestErrorDetails,
  type RequestErrorKind,
} from "./errors.js";
export type { Log, LogOptions } from "./log.js";
export type { Paused } from "./page.js";
export type {
  DeadLetter,
  Durability,
  ErrorCode,
  Kind,
  LogIndex,
  LogPage,
  Publication,
  RestoredSubscription,
  Retention,
  Settings,
  SettingsPatch,
  Settled,
  Submitted,
  SubscribeFrom,
  SubscriptionMeta,
  SubscriptionReference,
  Uuid,
  Welcome,
} from "./protocol.js";
export type { Delivery, Leases, QueueSubscription, RejectOptions } from "./queue.js";
export type {
  Bound,
  DeletedEvent,
  Event,
  GapEvent,
  NotRecoveredEvent,
  Place,
  PublicationEvent,
  Subscription,
} from "./subscriber.js";
export { newPublicationId, newSession, subscriptionId } from "./uuid.js";
