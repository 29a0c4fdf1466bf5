// Internal. "host:port" and "unix:PATH" as socket addresses, and the rule that plain text stays on this machine. Any
// thread; may ask the resolver. Throws Error with what to do.
#pragma once
#include <sys/socket.h>

#include <string>
#include <string_view>

#include "base/file.hpp"
#include "wire/server.hpp"

namespace hansa::wire {

struct Address {
  std::string text;
  sockaddr_storage socket{};
  socklen_t length = 0;
  bool is_unix() const { return socket.ss_family == AF_UNIX; }
};
Address parse_address(const std::string& text, Exposure);
std::string to_text(const sockaddr_storage&, socklen_t);

// A bound, listening, non-blocking socket. A Unix socket gets mode 0600, and replaces one on which nobody listens.
FileDescriptor listen_on(const Address&);
Address bound_address(int fd);
// What the kernel knows about the other end of a connected socket, for logs.
std::string describe_peer(int fd);
// Dead peers are noticed within about a minute, and small messages do not wait for more to come (Nagle's algorithm against
// delayed acknowledgements: 40 ms for each question).
void prepare_connection(int fd);

}  // namespace hansa::wire
