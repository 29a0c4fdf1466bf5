@0xd6f3a1c95b0e7a11;
# The contract between a Hansa coordinator and its nodes. Bytes only: what they mean stands in the packet format and in the
# pipeline. Any language with Cap'n Proto RPC (level 1, two-party) can join from this file alone:
#
#   connect (TCP or Unix socket), bootstrap Coordinator, join(hello) -> session, welcome
#   loop: session.nextWork(epoch held) -> work
#     work.pull[i].source.read(sink, 0)   push the bytes that bring the node to work.baseEpoch into `sink`
#     train or evaluate; session.heartbeat(token, progress) at least every welcome.heartbeatMs
#     work.upload.write(offset, bytes, xxh3) ..., work.upload.commit(info, report) -> receipt
#   after a broken link: connect, join, session.resume(token) -> the same work, and how much of the upload is held
#
# Rules. Refusals are values (Fault); an RPC exception means a bug or a broken link, never "no". One message stays under
# 64 MiB. A connection that has not joined within a few seconds is closed. Checksums are XXH3 with seed 0: 64 bit over each
# chunk, 128 bit over a whole. Digests are SHA-256 in lower-case hex. Fields are only ever added.

using Cxx = import "/capnp/c++.capnp";
$Cxx.namespace("hansa::wire::rpc");

# ---- values ----------------------------------------------------------------------------------------------------------

struct Fault {
  # The one way in which a refusal is reported. Absent, or code none: no refusal.
  code    @0 :Code;
  message @1 :Text;    # for a human: what, where, what to do
  retry   @2 :Bool;    # true: the same request may succeed later
  afterMs @3 :UInt32;  # if so, not before this many milliseconds
  enum Code {
    none            @0;
    busy            @1;   # no room (disk, memory, another upload) right now
    notSelected     @2;   # this node has no part in the round
    staleRound      @3;   # the round is over
    badChecksum     @4;   # a chunk, or the whole, is not what was announced
    badPayload      @5;   # a request, or an upload, that cannot be right: says why
    protocolVersion @6;   # the majors differ
    pluginMismatch  @7;   # this node cannot run the pipeline
    baseMismatch    @8;   # another base model or tokenizer
    unauthorised    @9;   # this peer may not do that
    budgetSpent     @10;  # of privacy: no further round
    finished        @11;  # the run is over: disconnect
    unknownToken    @12;  # no such work (any more): ask for the next
    tooLarge        @13;  # more bytes than the work allows
    nameTaken       @14;  # another connection has joined by this name
    cancelled       @15;  # taken back by the coordinator, or by the reader of a stream
  }
}

struct Version {
  major @0 :UInt16;  # equal on both sides, or join is refused
  minor @1 :UInt16;  # grows with additions; either side ignores what it does not know
}

struct Metric {
  name  @0 :Text;     # "loss", "tokens_per_second"
  value @1 :Float64;
}

struct Hello {
  protocol        @0 :Version;          # of this file: 1.0
  node            @1 :Text;             # stable name: 1 to 64 of [A-Za-z0-9._-], starting with a letter, digit or underscore
  build           @2 :Text;             # for logs: "hansa 0.1.0 torch 2.13.0 cpu"
  baseDigest      @3 :Text;             # of the base model that the node holds
  tokenizerDigest @4 :Text;             # of its tokenizer
  plugins         @5 :List(PluginRef);  # what this node can run
  resources       @6 :Resources;        # for the selector; zeros where unknown
  examples        @7 :UInt64;           # how many training examples the node claims
  rank            @8 :Float64;          # adapter rank that it can carry; 0: whatever the run has
  struct PluginRef {
    id      @0 :Text;  # "org.hansa.fedavg"
    version @1 :Text;
    digest  @2 :Text;  # of the library file
  }
  struct Resources {
    ramBytes             @0 :UInt64;
    gpuBytes             @1 :UInt64;
    gpus                 @2 :UInt16;
    uplinkBytesPerSecond @3 :Float64;
  }
}

struct Welcome {
  protocol    @0 :Version;  # the coordinator's
  runId       @1 :Text;     # names the run; changes never
  nodeId      @2 :UInt64;   # this node's number in reductions and reports
  chunkBytes  @3 :UInt32;   # size of chunks, both ways; the last one of a blob is shorter
  heartbeatMs @4 :UInt32;   # interval of heartbeats while work is in hand
}

struct BlobInfo {
  # An immutable run of bytes.
  xxh3High @0 :UInt64;  # XXH3-128 over all bytes: upper half
  xxh3Low  @1 :UInt64;  # and lower half
  size     @2 :UInt64;
  format   @3 :UInt16;  # packet format version
}

# ---- moving bytes ----------------------------------------------------------------------------------------------------

interface ByteSink {
  # Takes the chunks of one blob in order.
  write @0 (offset :UInt64, bytes :Data, xxh3 :UInt64) -> stream;
  # `xxh3` is over `bytes`. Bytes that the sink has already are ignored, so repeating a chunk does no harm; a gap is a fault.
}

interface BlobSource {
  read @0 (to :ByteSink, offset :UInt64) -> (fault :Fault);
  # Pushes everything from `offset` into `to`; answers when the sink has taken it all. A sink that wants no more fails a
  # write, and the answer is the fault `cancelled`. Any number of times.
}

interface Upload extends(ByteSink) {
  # Takes the result of one work. A refused chunk does not fail: the refusal is remembered, further bytes are dropped, and
  # commit answers with it.
  held @0 () -> (offset :UInt64);
  # The length of the prefix that the coordinator holds, also after its death: go on from there.
  commit @1 (info :BlobInfo, report :Report) -> (receipt :Receipt, fault :Fault);
  # All bytes are written. An evaluation commits its report with size 0 and the checksum of nothing. May be repeated over a
  # new link when the answer was lost. A fault with `retry` leaves the prefix: resume, and write the rest.
  abandon @2 (reason :Text) -> ();
  # The node gives the work up. A broken link is not that: the coordinator waits until the lease is over.
}

# ---- the round -------------------------------------------------------------------------------------------------------

struct Work {
  task           @0 :Task;
  round          @1 :UInt64;
  attempt        @2 :UInt32;
  baseEpoch      @3 :UInt64;         # version of the global state that the result is taken against
  view           @4 :Text;           # which part of the model this node trains; empty: all
  pull           @5 :List(Source);   # what the node lacks of baseEpoch, in the order in which it is applied
  exchange       @6 :Data;           # roles and channels of this round (an evaluation: of the state), canonical bytes
  pipelineDigest @7 :Text;           # of the resolved pipeline: Session.pipeline gives it, once is enough
  upload         @8 :Upload;         # where the result goes
  held           @9 :UInt64;         # prefix of the upload that the coordinator holds
  maxUploadBytes @10 :UInt64;        # a longer upload is refused
  leaseMs        @11 :UInt32;        # a heartbeat before this, or the work goes
  token          @12 :Data;          # names exactly this work; Session.resume takes it
  settled        @13 :List(Settled); # what became of earlier uploads of this node
  enum Task { train @0; evaluate @1; }
  struct Source {
    channel   @0 :Text;        # "version": all that stands, replaces what the node holds; "part": the tensors that moved since
                               # fromEpoch, the others stay; "log": entries of append-only channels; "snapshot": all
                               # such entries up to toEpoch as one, replaces them. All are packets
    fromEpoch @1 :UInt64;      # state that the bytes apply to (0 where it does not matter)
    toEpoch   @2 :UInt64;      # state that they lead to
    info      @3 :BlobInfo;    # what the bytes must be
    source    @4 :BlobSource;
  }
  struct Settled {
    token   @0 :Data;  # of the earlier work
    applied @1 :Bool;  # true: it is part of the global state, so the node's pending state holds; false: drop that
    reason  @2 :Text;  # why it was not applied
  }
}

struct Report {
  # What the node says about the work done; counts are claims.
  examples @0 :UInt64;
  tokens   @1 :UInt64;
  steps    @2 :UInt32;         # of the optimiser
  seconds  @3 :Float64;        # of computing
  metrics  @4 :List(Metric);
}

struct Receipt {
  # The upload is complete and safe. Accepted is not applied: see Work.settled.
  round    @0 :UInt64;
  accepted @1 :Bool;
  reason   @2 :Text;  # why it was not accepted
}

struct Progress {
  stage   @0 :Stage;
  done    @1 :UInt64;  # of `total`, in units of the stage: bytes, steps
  total   @2 :UInt64;
  metrics @3 :List(Metric);
  enum Stage { idle @0; downloading @1; training @2; encoding @3; uploading @4; evaluating @5; }
}

struct Directive {
  # The coordinator's answer to a heartbeat.
  union {
    carryOn  @0 :Void;
    stop     @1 :Text;    # drop the work, for this reason, and ask for the next
    extendMs @2 :UInt32;  # the lease is now this long
  }
}

interface Session {
  # One joined node on one connection.
  nextWork @0 (holdsEpoch :UInt64) -> (work :Work, fault :Fault);
  # Answers when there is work (a long poll), or never. A later call replaces an earlier one. `holdsEpoch`: version of the
  # global state that the node has, 0 for none.
  resume @1 (token :Data) -> (work :Work, fault :Fault);
  # The same work with fresh capabilities, after a broken link or a restart of either side.
  pipeline @2 (digest :Text) -> (canonical :Data, fault :Fault);
  # The resolved pipeline with that digest. It names plugins by id, version and digest; it carries no code.
  heartbeat @3 (token :Data, progress :Progress) -> (directive :Directive);
  # Renews the lease of a work.
  leave @4 () -> ();
  # A goodbye: the node's unfinished work need not be waited for.
}

interface Coordinator {
  # The bootstrap object: one per connection, which knows its peer.
  join @0 (hello :Hello) -> (session :Session, welcome :Welcome, fault :Fault);
}
