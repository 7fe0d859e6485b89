/* SPDX-License-Identifier: MIT
 *
 * A directory tree from a short text, for the fuzzer of trees and the test of its corpus. One entry
 * a line; directories above it are made. Lines that make no sense are left out.
 *
 *   f NAME TEXT         a file that holds TEXT
 *   s NAME SIZE JSON    a safetensors file: the header JSON, and SIZE bytes of data
 *   z NAME SIZE         a file of SIZE zeros
 *   l NAME TARGET       a symbolic link
 *   d NAME              a directory
 *   p NAME              a FIFO
 *   . NAME              the checkpoint is this directory, not the top
 */
#ifndef SUPPORT_TREE_INPUT_H
#define SUPPORT_TREE_INPUT_H

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define TREE_MAX_FILE 65536
#define TREE_MAX_TEXT 16384

/* Whether it can be made without leaving the tree: the tree may hold links, but is not made through
 * any, see tree_parent. */
static inline bool tree_name_ok(const char *name)
{
    return name[0] != '\0' && name[0] != '/' && strlen(name) < 200 && strstr(name, "..") == NULL &&
           strstr(name, "//") == NULL && name[strlen(name) - 1] != '/';
}

/* A descriptor of the directory that `name` is to be in, with *base where the last part of the name
 * begins; -1 when that cannot be. Follows no link. */
static inline int tree_parent(int top, char *name, const char **base)
{
    int directory = dup(top);
    char *part = name;
    for (char *slash; directory >= 0 && (slash = strchr(part, '/')) != NULL; part = slash + 1) {
        *slash = '\0';
        if (mkdirat(directory, part, 0755) != 0 && errno != EEXIST) {
            close(directory);
            return -1;
        }
        int next = openat(directory, part, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        close(directory);
        directory = next;
    }
    *base = part;
    return directory;
}

static inline void tree_write(int directory, const char *base, const void *head, size_t head_length,
                              const char *text, size_t length, uint64_t zeros)
{
    int fd = openat(directory, base, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644);
    if (fd < 0)
        return;
    ssize_t wrote = write(fd, head, head_length) + write(fd, text, length);
    if (wrote != (ssize_t)(head_length + length) ||
        ftruncate(fd, (off_t)(head_length + length + zeros)) != 0)
        abort(); /* no memory for a file system in memory: nothing to learn here */
    close(fd);
}

static inline uint64_t tree_size(char **rest)
{
    unsigned long long size = strtoull(*rest, rest, 10);
    while (**rest == ' ')
        (*rest)++;
    return size < TREE_MAX_FILE ? size : TREE_MAX_FILE;
}

static inline void tree_entry(int top, char kind, char *name, char *rest)
{
    const char *base;
    int directory = tree_parent(top, name, &base);
    uint64_t zeros = 0, length;
    if (directory < 0)
        return;
    if (kind == 's' || kind == 'z')
        zeros = tree_size(&rest);
    length = strlen(rest);
    if (kind == 'f')
        tree_write(directory, base, NULL, 0, rest, length, 0);
    else if (kind == 's')
        tree_write(directory, base, &length, sizeof length, rest, length, zeros);
    else if (kind == 'z')
        tree_write(directory, base, NULL, 0, NULL, 0, zeros);
    else if (kind == 'l' && symlinkat(rest, directory, base) != 0)
        errno = 0;
    else if (kind == 'd' && mkdirat(directory, base, 0755) != 0)
        errno = 0;
    else if (kind == 'p' && mkfifoat(directory, base, 0644) != 0)
        errno = 0;
    close(directory);
}

/* Makes the tree below the directory `top`, which is empty. source: where the checkpoint is. */
static inline void tree_make(const char *top, const uint8_t *data, size_t size,
                             char source[PATH_MAX])
{
    char text[TREE_MAX_TEXT + 1], *save = NULL;
    int fd = open(top, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    snprintf(source, PATH_MAX, "%s", top);
    if (fd < 0)
        abort();
    size = size < TREE_MAX_TEXT ? size : TREE_MAX_TEXT;
    memcpy(text, data, size);
    text[size] = '\0';
    for (char *line = strtok_r(text, "\n", &save); line != NULL;
         line = strtok_r(NULL, "\n", &save)) {
        if (strlen(line) < 3 || line[1] != ' ')
            continue;
        char *name = line + 2, *rest = strchr(name, ' ');
        if (rest != NULL)
            *rest++ = '\0';
        if (!tree_name_ok(name))
            continue;
        if (line[0] == '.')
            snprintf(source, PATH_MAX, "%s/%s", top, name);
        else
            tree_entry(fd, line[0], name, rest != NULL ? rest : name + strlen(name));
    }
    close(fd);
}

static inline int tree_remove_entry(const char *path, const struct stat *status, int kind,
                                    struct FTW *where)
{
    (void)status;
    return where->level == 0 ? 0 : kind == FTW_DP ? rmdir(path) : unlink(path);
}

/* Removes all that is below `top`. */
static inline void tree_clear(const char *top)
{
    nftw(top, tree_remove_entry, 16, FTW_DEPTH | FTW_PHYS);
}

#endif
