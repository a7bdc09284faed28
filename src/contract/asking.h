// Asking before sending: metadata that client and server agree upon for streams of pieces. Header-only, so that the
// client library can be installed by itself.
//
// gRPC lets a client send some MiB of a call before anybody has let it in. A call that is refused then has cost nearly
// what it would have cost. So a server that refuses calls tells clients to ask (kAskTrailer), and for a while these
// open a stream with headers alone (kAskHeader) and send its first piece when the server's initial metadata says that
// its turn has come (kLetIn). That costs a round trip, and a refusal next to nothing.
#pragma once

namespace attnd::contract {

inline constexpr char kAskTrailer[] = "attnd-ask";      // with a refusal; any value
inline constexpr char kAskHeader[] = "attnd-asks";      // of a stream; any value
inline constexpr char kLetInHeader[] = "attnd-let-in";  // in the answer's initial metadata

}  // namespace attnd::contract
