// Asking before sending: the metadata by which client and server agree on it, for streams of pieces. Header-only, so
// that the client library can be installed by itself.
//
// gRPC lets a client send some MiB of a call before the server has admitted it, so a refused call costs nearly as much
// as one that is served. A server that refuses calls therefore tells clients to ask (kAskTrailer). For a while, such a
// client opens its streams with headers alone (kAskHeader) and sends the first piece when the server's initial metadata
// says that its turn has come (kLetInHeader). That costs one round trip, and makes a refusal almost free.
#pragma once

namespace attnd::contract {

inline constexpr char kAskTrailer[] = "attnd-ask";      // sent with a refusal; any value
inline constexpr char kAskHeader[] = "attnd-asks";      // sent when a stream opens; any value
inline constexpr char kLetInHeader[] = "attnd-let-in";  // in the server's initial metadata

}  // namespace attnd::contract
