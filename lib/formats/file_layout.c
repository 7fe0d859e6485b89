/* SPDX-License-Identifier: MIT */
#include "formats/file_layout.h"

#include <stdlib.h>

void file_layout_free(struct file_layout *layout)
{
    text_free(&layout->header);
    free(layout->tensors);
    free(layout->padding);
    *layout = (struct file_layout){0};
}
