// The coordinator's end of the wire: a listening socket and one I/O thread that serves a Service to any number of nodes.
// Made and stopped by the coordinator's main thread. Throws hansa::Error when it cannot listen (port in use, an address
// that plain text must not leave the machine by, …); afterwards nothing that a peer does can make it fail.
#pragma once
#include <cstdint>
#include <memory>
#include <string>

#include "wire/service.hpp"

namespace hansa::wire {

enum class Exposure : std::uint8_t {
  LocalOnly,          // loopback and Unix sockets; anything else is refused
  PlaintextAnywhere,  // --insecure-plaintext
};

struct ServerOptions {
  std::string listen = "127.0.0.1:0";  // "host:port", "[v6]:port" or "unix:PATH"; port 0 takes a free one
  Exposure exposure = Exposure::LocalOnly;
  std::uint32_t join_within_ms = 5000;  // a connection that has not joined by then is closed
};

class Server {
 public:
  Server(Service&, ServerOptions);  // `service` outlives the server
  ~Server();                        // stop()
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  const std::string& address()
      const;  // as bound: "127.0.0.1:39211", "unix:/run/hansa.sock"; a Client takes it as it is
  // Closes the socket and every link, calls disconnected() on each session, joins the thread. Idempotent. Not from the
  // I/O thread. Replies given afterwards go nowhere.
  void stop();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace hansa::wire
