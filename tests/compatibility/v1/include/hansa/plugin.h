/* The plain-C half of the plugin boundary: what a plugin file says about itself before any C++ object crosses.
 *
 * Who calls it: the host reads `.note.hansa` from the file, loads it, calls hansa_plugin_entry() once, and keeps every
 * pointer for the life of the process (plugins are never unloaded). All memory reached from HansaPlugin belongs to the
 * plugin and is immutable. Plugin authors do not fill these tables by hand: see plugin.hpp.
 *
 * Evolution: each struct begins with its size. A minor version appends fields; a reader uses a field only if
 * struct_size covers it. Arrays are arrays of pointers, so that a longer struct keeps its stride. */
#ifndef HANSA_PLUGIN_H
#define HANSA_PLUGIN_H
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define HANSA_ABI_MAJOR 1
#define HANSA_ABI_MINOR 0
#define HANSA_ENTRY_SYMBOL "hansa_plugin_entry"
#define HANSA_NOTE_SECTION ".note.hansa"

/* ---- parameters -------------------------------------------------------------------------------------------------- */

enum HansaType {
  HANSA_BOOL = 1,
  HANSA_INT = 2,       /* 64-bit signed */
  HANSA_REAL = 3,      /* finite double */
  HANSA_TEXT = 4,      /* UTF-8 */
  HANSA_CHOICE = 5,    /* text, one of choices */
  HANSA_BYTES = 6,     /* a size: "64MiB" or an integer; in bytes */
  HANSA_DURATION = 7,  /* "10m", "1.5s" or a number of seconds; in seconds */
  HANSA_PATH = 8,      /* resolved against the file that names it; absolute after resolution */
  HANSA_LIST = 9,      /* of one element type */
  HANSA_TABLE = 10,    /* nested table with fields of its own */
  HANSA_COMPONENT = 11 /* an inner table with `use = "name"` */
};

typedef struct HansaText {
  const char* data; /* not necessarily NUL-terminated */
  uint64_t size;
} HansaText;

/* A resolved value. Which member counts follows from type. */
typedef struct HansaValue {
  uint32_t struct_size;
  uint32_t type;                         /* enum HansaType */
  int64_t integer;                       /* bool (0/1), int, bytes; component: HANSA_TRAIT_… for these parameters */
  double real;                           /* real; duration in seconds */
  HansaText text;                        /* text, choice, path; component: its name */
  const struct HansaValue* const* items; /* list elements; table and component: values */
  const char* const* keys;               /* table and component: NUL-terminated names, beside items */
  uint32_t count;
} HansaValue;

enum HansaParamFlags {
  HANSA_PARAM_REQUIRED = 1,
  HANSA_PARAM_SECRET = 2,        /* never printed, never stored in a run directory */
  HANSA_PARAM_MIN = 4,           /* minimum is set */
  HANSA_PARAM_MAX = 8,           /* maximum is set */
  HANSA_PARAM_MIN_EXCLUDED = 16, /* value > minimum rather than >= */
  HANSA_PARAM_MAX_EXCLUDED = 32,
  HANSA_PARAM_MUST_EXIST = 64 /* a path that must name an existing file or directory */
};

typedef struct HansaParam {
  uint32_t struct_size;
  uint32_t type;
  uint32_t flags;
  const char* name;
  const char* doc;
  const char* unit;        /* "" when it has none */
  double minimum, maximum; /* numbers, sizes, durations; for text and lists: of the length */
  const char* const* choices;
  uint32_t choice_count;
  const HansaValue* default_value;        /* null only when required, or when "absent" is a value of its own */
  const struct HansaParam* element;       /* list: the element's type and range (its name is unused) */
  const struct HansaParam* const* fields; /* table */
  uint32_t field_count;
  const char* component_kind;     /* component: "aggregator" */
  const char *since, *deprecated; /* "" or a version; deprecated: what to use instead */
} HansaParam;

/* ---- traits: what the rules of `hansa check` reason about; a function of the parameters ------------------------------- */

#define HANSA_TRAIT_LINEAR (1ull << 0)                /* encode(a + b) = encode(a) + encode(b) */
#define HANSA_TRAIT_UNBIASED (1ull << 1)              /* E[decode(encode(x))] = x */
#define HANSA_TRAIT_LOSSLESS (1ull << 2)              /* decode(encode(x)) = x, bit for bit */
#define HANSA_TRAIT_FIXED_SUPPORT (1ull << 3)         /* which elements are sent does not depend on the values */
#define HANSA_TRAIT_NORM_SAFE (1ull << 4)             /* never makes the L2 norm larger */
#define HANSA_TRAIT_ADDITIVE_CODES (1ull << 5)        /* decode(sum of codes) = sum of decodes */
#define HANSA_TRAIT_ORDER_FREE (1ull << 6)            /* result does not depend on the order of clients */
#define HANSA_TRAIT_ADDITIVE (1ull << 7)              /* returns the weighted sum; the host noises and divides */
#define HANSA_TRAIT_ELEMENTWISE_MEAN (1ull << 8)      /* averages each tensor by itself */
#define HANSA_TRAIT_RANK_AWARE (1ull << 9)            /* accepts clients of different ranks */
#define HANSA_TRAIT_EXACT (1ull << 10)                /* the mean of the products, not the product of the means */
#define HANSA_TRAIT_NEEDS_INDIVIDUALS (1ull << 11)    /* must see single updates */
#define HANSA_TRAIT_RELEASES_INDIVIDUALS (1ull << 12) /* its downlink holds single contributions */
#define HANSA_TRAIT_ASSUMES_POISSON (1ull << 13)      /* its accounting assumes Poisson sampling */
#define HANSA_TRAIT_FLAT (1ull << 14)                 /* treats the update as one vector */
#define HANSA_TRAIT_GROWS_WITH_RANK (1ull << 15)
#define HANSA_TRAIT_KEEPS_HISTORY (1ull << 16)
#define HANSA_TRAIT_STATELESS (1ull << 17)
#define HANSA_TRAIT_REENTRANT (1ull << 18)          /* one instance may be entered by several threads at once */
#define HANSA_TRAIT_PLAIN_AVERAGING (1ull << 19)    /* a server optimiser that just adds the aggregate */
#define HANSA_TRAIT_POISSON (1ull << 20)            /* a selector: each node independently with one rate */
#define HANSA_TRAIT_EVERYONE (1ull << 21)           /* a selector: all registered nodes, always */
#define HANSA_TRAIT_CENTRAL_NOISE (1ull << 22)      /* a privacy mechanism: noise on the sum; central DP */
#define HANSA_TRAIT_LOCAL_NOISE (1ull << 23)        /* a privacy mechanism: noise on the node; local DP */
#define HANSA_TRAIT_CLOSES_EARLY (1ull << 24)       /* a round policy: may close before the whole cohort settled */
#define HANSA_TRAIT_STATES_SENSITIVITY (1ull << 25) /* not Additive, but bounds its own sensitivity */

typedef struct HansaTraits {
  uint32_t struct_size;
  uint64_t flags;
  const char* groups; /* kinds of layout groups it understands as one: "lora"; "" for lone tensors only */
} HansaTraits;

/* ---- components ---------------------------------------------------------------------------------------------------------- */

enum HansaMaturity { HANSA_EXPERIMENTAL = 0, HANSA_BETA = 1, HANSA_STABLE = 2 };

/* Cross-field checks report through this; `param` is the parameter's name ("" for the component as a whole). */
typedef struct HansaProblems {
  uint32_t struct_size;
  void* context;
  void (*add)(void* context, const char* param, const char* message, const char* hint);
} HansaProblems;

/* A factory that fails says why through this, and returns null. */
typedef struct HansaFault {
  uint32_t struct_size;
  void* context;
  void (*set)(void* context, const char* message);
} HansaFault;

/* Carries hansa::Host* (host.hpp); valid for the component's life. */
typedef struct HansaHost {
  uint32_t struct_size;
  void* host;
} HansaHost;

typedef struct HansaComponent {
  uint32_t struct_size;
  uint32_t maturity;   /* enum HansaMaturity */
  const char* kind;    /* "aggregator/1": interface with its revision */
  const char* id;      /* "fedavg" */
  const char* summary; /* one sentence */
  const char* doc;     /* paragraphs; papers by arXiv id */
  const HansaParam* const* params;
  uint32_t param_count;
  /* params is a table value holding every parameter, defaults filled in. The three return 0 on success. */
  uint32_t (*validate)(const struct HansaComponent* self, const HansaValue* params, HansaProblems* problems);
  uint32_t (*traits)(const struct HansaComponent* self, const HansaValue* params, HansaTraits* out);
  /* Returns exactly the kind's interface pointer (hansa::Aggregator*, not a derived class), or null with fault set. */
  void* (*create)(const struct HansaComponent* self, const HansaHost* host, const HansaValue* params,
                  HansaFault* fault);
  void (*destroy)(const struct HansaComponent* self, void* instance);
  /* An optional interface of a later minor version, or null. */
  void* (*query)(const struct HansaComponent* self, void* instance, const char* iface);
} HansaComponent;

typedef struct HansaPlugin {
  uint32_t struct_size;
  uint16_t abi_major, abi_minor;
  const char* id; /* "org_hansa_fedavg" */
  const char *version, *vendor, *license, *url;
  const HansaComponent* const* components;
  uint32_t component_count;
} HansaPlugin;

/* The only exported function of a plugin. */
typedef const HansaPlugin* (*HansaPluginEntry)(void);

#ifdef __cplusplus
}
#endif
#endif
