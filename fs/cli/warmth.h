/* SPDX-License-Identifier: MIT
 * Whether a mount has become as warm as it will. A pure function of its status. */
#ifndef FS_CLI_WARMTH_H
#define FS_CLI_WARMTH_H

#include "unshard.h"

enum warmth_state {
    WARMTH_RISING,  /* there is more to come */
    WARMTH_REACHED, /* all that is to be prefetched has been, as far as memory allows */
    WARMTH_FAILING, /* storage fails now; the mount goes on trying */
    WARMTH_NEVER    /* it will not come to that: something has failed or cannot be verified */
};

struct warmth {
    uint64_t done, total;   /* bytes of the components that are to be warm */
    const char *unfinished; /* name of the first that is not, of the status; "" for none */
    char message[1024];     /* of all but RISING: for a person */
};

/* Judges a status (NULL, for one of another schema: NEVER). verified: every component must also
 * match digests known beforehand. Evicted components do not count. *out is valid as long as the
 * status. */
enum warmth_state warmth_of(const struct unshard_status *status, bool verified, struct warmth *out);

#endif
