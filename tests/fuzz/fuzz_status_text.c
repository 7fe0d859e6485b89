/* SPDX-License-Identifier: MIT
 *
 * The text of a status: `unshard status FILE` takes it from any file. The first byte is the width.
 */
#include <stdlib.h>
#include <string.h>

#include "unshard.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *json;

    if (size == 0)
        return 0;
    json = malloc(size);
    if (json == NULL)
        return 0;
    memcpy(json, data + 1, size - 1);
    json[size - 1] = '\0';
    free(unshard_status_text(json, data[0]));
    free(json);
    return 0;
}
