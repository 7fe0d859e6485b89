/* SPDX-License-Identifier: MIT */
#ifndef EXPORT_VIEW_FINGERPRINT_H
#define EXPORT_VIEW_FINGERPRINT_H

#include "base/xxh3.h"
#include "tree/model.h"

/* Of the bytes of a view, without reading them: its header, which bytes of which files it shows,
 * and the identity of these (inode, size and times), as discovery saw them. verify: how its bytes
 * are looked at. Zero when memory is short. Pure. */
XXH128_hash_t view_fingerprint(const struct unshard_checkpoint *checkpoint, uint32_t view,
                               enum unshard_verify verify);

#endif
