/* SPDX-License-Identifier: MIT */
#include "tree/parsed_list.h"

#include "digest/checksum_list.h"
#include "digest/checksums_json.h"
#include "digest/xxhsum_list.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static int parse(struct parsed_list *list, struct digest_list_name name, const char *origin,
                 const char *text, size_t length)
{
    const char *subject = NULL;
    if (name.subject_length > 0) {
        const char *file = strrchr(list->path, '/');
        file = file != NULL ? file + 1 : list->path;
        subject = arena_copy_string(&list->arena, file, name.subject_length);
        if (subject == NULL)
            return -ENOMEM;
    }
    switch (name.kind) {
    case DIGEST_LIST_MANIFEST:
        return manifest_parse(text, length, origin, &list->arena, &list->manifest, &list->error);
    case DIGEST_LIST_XXHSUM:
        return xxhsum_list_parse(text, length, origin, &list->arena, &list->list, &list->error);
    case DIGEST_LIST_JSON:
        return checksums_json_parse(text, length, origin, &list->arena, &list->list, &list->error);
    default:
        return checksum_list_parse(text, length, origin, name.algorithm, subject, &list->arena,
                                   &list->list, &list->error);
    }
}

struct parsed_list *parsed_list_make(const struct scan_entry *entry, struct digest_list_name name,
                                     const char *origin, const char *text, size_t length)
{
    struct parsed_list *list = calloc(1, sizeof *list);
    if (list == NULL)
        return NULL;
    atomic_init(&list->holders, 1);
    list->device = entry->device;
    list->inode = entry->inode;
    list->size = entry->size;
    list->mtime_ns = entry->mtime_ns;
    list->ctime_ns = entry->ctime_ns;
    list->is_manifest = name.kind == DIGEST_LIST_MANIFEST;
    list->path = arena_copy_string(&list->arena, entry->path, strlen(entry->path));
    list->result = list->path == NULL ? -ENOMEM : parse(list, name, origin, text, length);
    if (list->result != -ENOMEM)
        return list;
    parsed_list_give_back(list);
    return NULL;
}

static bool is_of(const struct parsed_list *list, const struct scan_entry *entry)
{
    return list->inode == entry->inode && list->device == entry->device &&
           list->size == entry->size && list->mtime_ns == entry->mtime_ns &&
           list->ctime_ns == entry->ctime_ns && strcmp(list->path, entry->path) == 0;
}

struct parsed_list *parsed_list_find(const struct inherited *left, const struct scan_entry *entry)
{
    for (uint32_t i = 0; i < left->parsed_count; i++)
        if (is_of(left->parsed[i], entry)) {
            atomic_fetch_add(&left->parsed[i]->holders, 1);
            return left->parsed[i];
        }
    return NULL;
}

int parsed_list_keep(struct parsed_list *list, struct inherited *by)
{
    struct parsed_list **grown =
        reallocarray(by->parsed, by->parsed_count + (size_t)1, sizeof *grown);
    if (grown == NULL)
        return -ENOMEM;
    by->parsed = grown;
    grown[by->parsed_count++] = list;
    atomic_fetch_add(&list->holders, 1);
    return 0;
}

void parsed_list_give_back(struct parsed_list *list)
{
    if (list == NULL || atomic_fetch_sub(&list->holders, 1) > 1)
        return;
    digest_list_free(&list->list);
    arena_free(&list->arena);
    free(list);
}

void parsed_lists_free(struct inherited *by)
{
    for (uint32_t i = 0; i < by->parsed_count; i++)
        parsed_list_give_back(by->parsed[i]);
    free(by->parsed);
    by->parsed = NULL;
    by->parsed_count = 0;
}
