/* SPDX-License-Identifier: MIT
 *
 * A status that is read from JSON, which `unshard status FILE` takes from any file, and its
 * renderings. The first byte is the width. */
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
    struct unshard_status *status = unshard_status_parse(json);
    free(json);
    if (status == NULL)
        return 0;
    free(unshard_status_text(status, data[0]));
    struct unshard_screen screen = {data[0], data[size - 1], true};
    free(unshard_status_picture(status, &screen));
    free(unshard_status_summary(status));
    free(unshard_status_metrics(status));
    free(unshard_status_json(status));
    unshard_status_free(status);
    return 0;
}
