/* SPDX-License-Identifier: MIT
 *
 * Any bytes as a pickle, without and with what .metadata needs. Whatever the machine accepts it has
 * taken from the input, and all it names is in the table. */
#include "tests/fuzz/memory_reader.h"

#include "formats/torch/pickle_machine.h"

#include <errno.h>

static void run(const uint8_t *data, size_t size, bool distributed)
{
    struct arena arena = {0};
    struct pickle_result pickle;
    struct unshard_error error = {0};
    struct pickle_input input = {
        .bytes = (const char *)data, .length = size, .path = "fuzz", .distributed = distributed};
    int result = pickle_read(&input, &arena, &pickle, &error);
    if (result == 0) {
        require(pickle.root != NULL && pickle.consumed <= size && pickle.consumed > 0);
        require(data[pickle.consumed - 1] == '.');
        for (uint32_t i = 0; i < pickle.persistent_count; i++)
            require(pickle.persistent[i]->kind == PICKLE_PERSISTENT);
        if (pickle.root->kind == PICKLE_STRING)
            require(pickle.root->string >= (const char *)data &&
                    pickle.root->string + pickle.root->bytes <= (const char *)data + size);
    } else {
        require(error.code != NULL && error.message[0] != '\0');
        require(error.offset <= size || result == -ENOMEM);
    }
    arena_free(&arena);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    run(data, size, false);
    run(data, size, true);
    return 0;
}
