/* SPDX-License-Identifier: MIT
 *
 * How tensors of several files lie in one new file: a header, then each tensor's bytes followed by
 * so many zeros. What a format hands to the planner. */
#ifndef FORMATS_FILE_LAYOUT_H
#define FORMATS_FILE_LAYOUT_H

#include "base/text.h"
#include "formats/tensor_set.h"

#define FILE_LAYOUT_CONFLICT 256U

struct file_layout {
    struct text header;            /* everything before the first tensor */
    const struct tensor **tensors; /* in data order; malloc'd array, tensors belong to the sets */
    uint32_t *padding;             /* zeros after each of them; malloc'd. NULL: none anywhere */
    size_t tensor_count;
    bool canonical;   /* in the order of the reference library of the format */
    const char *note; /* static: something worth a line in the status, or NULL */
    /* The first metadata key on which the files differ, quoted; "" when there is none. */
    char conflict[FILE_LAYOUT_CONFLICT];
};

void file_layout_free(struct file_layout *layout);

#endif
