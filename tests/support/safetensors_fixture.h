/* SPDX-License-Identifier: MIT
 *
 * Small safetensors files and trees for tests. Every function ends the test on failure. */
#ifndef SUPPORT_SAFETENSORS_FIXTURE_H
#define SUPPORT_SAFETENSORS_FIXTURE_H

#include <assert.h>
#include <errno.h>
#include <ftw.h>
#include <limits.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct fixture_tensor {
    const char *name, *dtype;
    unsigned elements, element_bytes;
};

__attribute__((format(printf, 1, 2), noreturn)) static inline void fixture_die(const char *format,
                                                                               ...)
{
    va_list arguments;
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fprintf(stderr, ": %s\n", strerror(errno));
    abort();
}

/* A new directory; the caller removes it with fixture_remove. */
static inline char *fixture_directory(void)
{
    const char *base = getenv("TMPDIR");
    char template[PATH_MAX], *path;
    snprintf(template, sizeof template, "%s/unshard-test-XXXXXX", base != NULL ? base : "/tmp");
    if (mkdtemp(template) == NULL || (path = realpath(template, NULL)) == NULL)
        fixture_die("%s", template);
    return path;
}

static inline int fixture_remove_entry(const char *path, const struct stat *status, int type,
                                       struct FTW *walk)
{
    (void)status, (void)type, (void)walk;
    return remove(path);
}

static inline void fixture_remove(char *directory)
{
    nftw(directory, fixture_remove_entry, 16, FTW_DEPTH | FTW_PHYS);
    free(directory);
}

/* "ROOT/NAME", with the directories on the way made; valid until the next call but three. */
static inline const char *fixture_path(const char *root, const char *name)
{
    static char paths[4][PATH_MAX];
    static unsigned next;
    char *path = paths[next++ % 4];
    snprintf(path, PATH_MAX, "%s/%s", root, name);
    for (char *slash = path + strlen(root) + 1; (slash = strchr(slash, '/')) != NULL; slash++) {
        *slash = '\0';
        if (mkdir(path, 0755) != 0 && errno != EEXIST)
            fixture_die("%s", path);
        *slash = '/';
    }
    return path;
}

static inline void fixture_write(const char *root, const char *name, const void *data,
                                 size_t length)
{
    const char *path = fixture_path(root, name);
    FILE *file = fopen(path, "we");
    if (file == NULL || fwrite(data, 1, length, file) != length || fclose(file) != 0)
        fixture_die("%s", path);
}

static inline void fixture_text(const char *root, const char *name, const char *text)
{
    fixture_write(root, name, text, strlen(text));
}

/* A file with these tensors one after the other. metadata: the JSON of `__metadata__`, or NULL.
 * Byte i of the data is i + seed. Returns its size. */
static inline uint64_t fixture_safetensors(const char *root, const char *name, const char *metadata,
                                           const struct fixture_tensor *tensors, size_t count,
                                           unsigned seed)
{
    char *json = NULL;
    size_t length = 0;
    uint64_t data = 0;
    FILE *out = open_memstream(&json, &length);
    fputs("{", out);
    if (metadata != NULL)
        fprintf(out, "\"__metadata__\":%s%s", metadata, count > 0 ? "," : "");
    for (size_t i = 0; i < count; i++) {
        uint64_t bytes = (uint64_t)tensors[i].elements * tensors[i].element_bytes;
        fprintf(out, "%s\"%s\":{\"dtype\":\"%s\",\"shape\":[%u],\"data_offsets\":[%llu,%llu]}",
                i > 0 ? "," : "", tensors[i].name, tensors[i].dtype, tensors[i].elements,
                (unsigned long long)data, (unsigned long long)(data + bytes));
        data += bytes;
    }
    fputs("}", out);
    fclose(out);
    char *all = malloc(8 + length + data + 1);
    if (all == NULL)
        fixture_die("%s", name);
    for (unsigned i = 0; i < 8; i++)
        all[i] = (char)(length >> (8 * i));
    memcpy(all + 8, json, length);
    for (uint64_t i = 0; i < data; i++)
        all[8 + length + i] = (char)(i + seed);
    fixture_write(root, name, all, 8 + length + data);
    free(all);
    free(json);
    return 8 + length + data;
}

/* A file with one F32 tensor of four elements. Returns its size. */
static inline uint64_t fixture_shard(const char *root, const char *name, const char *tensor)
{
    struct fixture_tensor only = {tensor, "F32", 4, 4};
    return fixture_safetensors(root, name, "{\"format\":\"pt\"}", &only, 1, (unsigned)*tensor);
}

static inline void fixture_symlink(const char *root, const char *name, const char *target)
{
    const char *path = fixture_path(root, name);
    if (symlink(target, path) != 0)
        fixture_die("%s", path);
}

#endif
