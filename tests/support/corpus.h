/* SPDX-License-Identifier: MIT
 *
 * Walks a folder of the corpus: accept-* must be taken, reject-* refused. To be included after
 * cmocka. */
#ifndef SUPPORT_CORPUS_H
#define SUPPORT_CORPUS_H

#include "unshard.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Parses the content of one file under its name. 0, or a negative errno with *error. */
typedef int (*corpus_parse)(const char *data, size_t length, const char *name,
                            struct unshard_error *error);

static inline char *corpus_read(const char *path, size_t *length)
{
    FILE *file = fopen(path, "re");
    if (file == NULL)
        fail_msg("%s: cannot open; run from the top of the source", path);
    char *data = malloc(1 << 20);
    assert_non_null(data);
    *length = fread(data, 1, 1 << 20, file);
    assert_true(feof(file));
    fclose(file);
    return data;
}

static inline void corpus_check(const char *folder, const char *name, corpus_parse parse)
{
    char path[512];
    size_t length;
    struct unshard_error error = {0};
    snprintf(path, sizeof path, "%s/%s", folder, name);
    char *data = corpus_read(path, &length);
    int result = parse(data, length, name, &error);
    if (strncmp(name, "accept-", 7) == 0) {
        if (result != 0)
            fail_msg("%s is refused: %s", name, error.message);
    } else if (result == 0) {
        fail_msg("%s is accepted", name);
    } else {
        /* The message names the file, and there is a word for scripts. */
        assert_non_null(error.code);
        assert_int_equal(strncmp(error.message, name, strlen(name)), 0);
        assert_true(strlen(error.message) > strlen(name) + 2);
    }
    free(data);
}

/* Checks every file of the folder; there must be at least `least` of either kind. */
static inline void corpus_walk(const char *folder, corpus_parse parse, unsigned least)
{
    unsigned accepted = 0, rejected = 0;
    DIR *directory = opendir(folder);
    const struct dirent *entry;
    if (directory == NULL)
        fail_msg("%s: cannot open; run from the top of the source", folder);
    while ((entry = readdir(directory)) != NULL) {
        if (strncmp(entry->d_name, "accept-", 7) == 0)
            accepted++;
        else if (strncmp(entry->d_name, "reject-", 7) == 0)
            rejected++;
        else
            continue;
        corpus_check(folder, entry->d_name, parse);
    }
    closedir(directory);
    assert_true(accepted >= least && rejected >= least);
}

/* For what is known by the name: calls check with each of at least `least` in the folder. */
static inline void corpus_each(const char *folder, int least, void (*check)(const char *name))
{
    struct dirent **names;
    int count = scandir(folder, &names, NULL, alphasort);
    assert_true(count > least);
    for (int i = 0; i < count; i++) {
        if (names[i]->d_name[0] != '.')
            check(names[i]->d_name);
        free(names[i]);
    }
    free(names);
}

#endif
