/* SPDX-License-Identifier: MIT
 *
 * How tensors of several files lie in one new file: a header, then each tensor's bytes followed by
 * so many zeros. What formats that lay out their own merged files hand to the planner. */
#ifndef FORMATS_FILE_LAYOUT_H
#define FORMATS_FILE_LAYOUT_H

#include "base/text.h"
#include "formats/tensor_set.h"

struct file_layout {
    struct text header;            /* everything before the first tensor */
    const struct tensor **tensors; /* in data order; malloc'd array, tensors belong to the sets */
    uint32_t *padding;             /* zeros after each of them; malloc'd */
    size_t tensor_count;
    const char *note; /* static: something worth a line in the status, or NULL */
};

void file_layout_free(struct file_layout *layout);

#endif
