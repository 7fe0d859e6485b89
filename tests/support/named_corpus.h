/* SPDX-License-Identifier: MIT
 *
 * Walking a corpus whose files say what is to become of them: accept-WHAT, or reject-CODE--WHAT
 * with the code of the error. To be included after cmocka.h. */
#ifndef SUPPORT_NAMED_CORPUS_H
#define SUPPORT_NAMED_CORPUS_H

#include "formats/tensor_set.h"
#include "unshard.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct corpus_file {
    char name[256];
    char *data;
    size_t size;
};

/* A byte_reader over a file in memory that aborts when it is asked for what is not there. */
static inline int corpus_read_at(void *context, uint64_t offset, void *buffer, size_t length)
{
    const struct corpus_file *file = context;
    if (offset > file->size || length > file->size - offset)
        abort();
    memcpy(buffer, file->data + offset, length);
    return 0;
}

static inline struct byte_reader corpus_reader(struct corpus_file *file)
{
    return (struct byte_reader){.context = file, .size = file->size, .read = corpus_read_at};
}

static inline struct corpus_file corpus_load(const char *folder, const char *name)
{
    char path[1024];
    struct corpus_file file = {0};
    snprintf(file.name, sizeof file.name, "%s", name);
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *stream = fopen(path, "rb");
    assert_non_null(stream);
    fseek(stream, 0, SEEK_END);
    file.size = (size_t)ftell(stream);
    rewind(stream);
    /* No byte beyond: a sanitizer sees a read past the end. */
    file.data = malloc(file.size > 0 ? file.size : 1);
    assert_non_null(file.data);
    assert_int_equal(fread(file.data, 1, file.size, stream), file.size);
    fclose(stream);
    return file;
}

/* Calls `parse` with each file of the folder, at least `least` of them, and compares what it
 * returns with the file's name. */
static inline void named_corpus_walk(const char *folder, size_t least,
                                     int (*parse)(struct corpus_file *file,
                                                  struct unshard_error *error))
{
    size_t count = 0;
    DIR *directory = opendir(folder);
    assert_non_null(directory);
    for (struct dirent *entry; (entry = readdir(directory)) != NULL;) {
        struct unshard_error error = {.code = "none"};
        if (entry->d_name[0] == '.')
            continue;
        struct corpus_file file = corpus_load(folder, entry->d_name);
        int result = parse(&file, &error);
        free(file.data);
        count++;
        const char *code = strncmp(file.name, "reject-", 7) == 0 ? file.name + 7 : NULL;
        if (code == NULL && result != 0)
            fail_msg("%s: %s: %s", file.name, error.code, error.message);
        if (code != NULL && result == 0)
            fail_msg("%s is accepted", file.name);
        size_t length = code != NULL ? strlen(error.code) : 0;
        if (code != NULL && (strncmp(code, error.code, length) != 0 || code[length] != '-'))
            fail_msg("%s: %s: %s", file.name, error.code, error.message);
        if (code != NULL && strncmp(error.message, "file", 4) != 0)
            fail_msg("%s: the message does not begin with the path: %s", file.name, error.message);
    }
    closedir(directory);
    assert_true(count >= least);
}

#endif
