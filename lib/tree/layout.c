/* SPDX-License-Identifier: MIT */
#include "tree/model.h"

struct unshard_checkpoint *unshard_layout_hold(struct unshard_checkpoint *layout)
{
    atomic_fetch_add_explicit(&layout->holders, 1, memory_order_relaxed);
    return layout;
}

void unshard_layout_release(struct unshard_checkpoint *layout)
{
    if (layout != NULL && atomic_fetch_sub_explicit(&layout->holders, 1, memory_order_acq_rel) == 1)
        unshard_checkpoint_close(layout);
}
