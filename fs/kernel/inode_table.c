/* SPDX-License-Identifier: MIT */
#include "fs/kernel/inode_table.h"

#include <errno.h>
#include <malloc.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <xxhash.h>

#include "fs/kernel/kept_nodes.h"

#define FIRST_BUCKETS 256u
#define IDENTITY_SIZE KEPT_IDENTITY_SIZE
#define TIDY_MS 1000
#define HELD_MS 2000
#define MOST_SEEN 256u
#define MOST_AT_ONCE 256u

struct node {
    struct inode inode;                    /* first */
    unsigned char identity[IDENTITY_SIZE]; /* of a file's view */
    uint64_t hash;                         /* of the identity, or of the path */
    /* Of the table's mutex: */
    struct node *next_by_id, *next_by_hash;
    bool entered; /* it is found by its hash; else another one has its path by now */
    uint64_t lookups;
    unsigned references;
    struct unshard_place place; /* of a file: where it was seen last; holds the layout */
    char *seen_path;            /* ... and as what */
    int64_t seen_ms;            /* ... and when, by the clock of inode_table_tidy */
    const void *seen_layout;    /* of a directory: compared, never followed */
    uint64_t size;              /* ... and how large */
    uint32_t view;              /* the engine's number; UNSHARD_NO_VIEW: it is not attached */
    bool answered;              /* the kernel has an inode */
    bool told;                  /* the engine has been told so */
    uint64_t model;             /* see inode_table_model */
    unsigned buffered, direct;  /* handles that are open */
    bool inherited;             /* the kernel may know it from an earlier process */
    bool was_attached;          /* ... in which it was, and here it has not been yet */
    uint64_t visits;            /* how often somebody has come upon it, see ask */
    struct kept_node *kept;     /* for the next process; NULL: it is not */
    struct unshard_checkpoint *told_of; /* of an attached one: the layout that the engine was asked
                                         * to tell of; held by it */
};

struct inode_table {
    uint64_t seed; /* names come from anywhere */
    pthread_mutex_t mutex;
    struct unshard_keep *keep; /* this and the next two: const after inode_table_inherit */
    inode_is_known is_known;
    void *is_known_context;
    /* Of mutex: */
    uint64_t *kept_last_id;
    struct unshard_engine *engine;
    struct node **by_id, **by_hash;
    size_t bucket_count;
    uint64_t count, bytes, last_id;
    int64_t now_ms;        /* when it was tidied last */
    const void *last_seen; /* the layout of who was seen last: compared, never followed */
    unsigned seen;         /* since it was tidied: layouts, counted anew whenever they take turns */
    uint64_t *view_nodeid; /* by the engine's number; 0: no node */
    size_t view_capacity;
};

static struct node *node_of(const struct inode *inode)
{
    return (struct node *)(uintptr_t)inode;
}

static void lock(struct inode_table *table)
{
    pthread_mutex_lock(&table->mutex);
}

static void unlock(struct inode_table *table)
{
    pthread_mutex_unlock(&table->mutex);
}

/* ---- finding -----------------------------------------------------------------------------------
 */

/* What a node is found by. */
struct key {
    enum unshard_node_kind kind;
    const char *path, *target;
    unsigned char identity[IDENTITY_SIZE];
    uint64_t hash;
};

static void hash_key(const struct inode_table *table, struct key *key)
{
    if (key->kind == UNSHARD_NODE_FILE)
        key->hash = XXH3_64bits_withSeed(key->identity, sizeof key->identity, table->seed);
    else
        key->hash = XXH3_64bits_withSeed(key->path, strlen(key->path), table->seed + 1);
}

static struct key make_key(const struct inode_table *table, const char *path,
                           const struct unshard_place *place)
{
    const struct unshard_node *shown = unshard_node(place->layout, place->node);
    struct key key = {.kind = shown->kind, .path = path, .target = shown->target};
    if (key.kind == UNSHARD_NODE_FILE)
        unshard_view_identity(place->layout, shown->view, key.identity);
    hash_key(table, &key);
    return key;
}

/* Whether a node is what has been seen. */
static bool is_same(const struct node *node, const struct key *key)
{
    if (node->hash != key->hash || node->inode.kind != key->kind)
        return false;
    if (key->kind == UNSHARD_NODE_FILE)
        return memcmp(node->identity, key->identity, IDENTITY_SIZE) == 0;
    return strcmp(node->inode.path, key->path) == 0 &&
           (key->kind != UNSHARD_NODE_SYMLINK || strcmp(node->inode.target, key->target) == 0);
}

static struct node **hash_bucket(const struct inode_table *table, uint64_t hash)
{
    return &table->by_hash[hash & (table->bucket_count - 1)];
}

static struct node **id_bucket(const struct inode_table *table, uint64_t id)
{
    return &table->by_id[id & (table->bucket_count - 1)];
}

static struct node *find_key(const struct inode_table *table, const struct key *key)
{
    struct node *node = *hash_bucket(table, key->hash);
    while (node && !is_same(node, key))
        node = node->next_by_hash;
    return node;
}

static struct node *find_id(const struct inode_table *table, uint64_t id)
{
    struct node *node = *id_bucket(table, id);
    while (node && node->inode.id != id)
        node = node->next_by_id;
    return node;
}

/* More buckets, if there is memory for them. */
static void grow(struct inode_table *table)
{
    size_t old = table->bucket_count, count = 2 * old;
    struct node **by_id = calloc(count, sizeof *by_id);
    struct node **by_hash = calloc(count, sizeof *by_hash);
    if (!by_id || !by_hash) {
        free(by_id);
        free(by_hash);
        return;
    }
    for (size_t i = 0; i < old; i++)
        for (struct node *node = table->by_id[i], *next; node; node = next) {
            next = node->next_by_id;
            struct node **bucket = &by_id[node->inode.id & (count - 1)];
            node->next_by_id = *bucket;
            *bucket = node;
            if (!node->entered)
                continue;
            bucket = &by_hash[node->hash & (count - 1)];
            node->next_by_hash = *bucket;
            *bucket = node;
        }
    free(table->by_id);
    free(table->by_hash);
    table->by_id = by_id;
    table->by_hash = by_hash;
    table->bucket_count = count;
}

/* Another one has its place, or it is gone. */
static void leave_hash(struct inode_table *table, struct node *node)
{
    struct node **link = hash_bucket(table, node->hash);
    while (*link != node)
        link = &(*link)->next_by_hash;
    *link = node->next_by_hash;
    node->entered = false;
}

static void leave_id(struct inode_table *table, const struct node *node)
{
    struct node **link = id_bucket(table, node->inode.id);
    while (*link != node)
        link = &(*link)->next_by_id;
    *link = node->next_by_id;
}

static void let_go(struct unshard_checkpoint *layout)
{
    if (layout)
        unshard_layout_release(layout);
}

/* ---- making and freeing ------------------------------------------------------------------------
 */

static void free_node(struct node *node)
{
    let_go(node->place.layout);
    free(node->inode.path);
    free(node->inode.target);
    free(node->seen_path);
    free(node);
}

static struct node *new_node(const struct key *key, const struct unshard_node *shown)
{
    struct node *node = calloc(1, sizeof *node);
    if (!node)
        return NULL;
    node->inode.kind = key->kind;
    node->inode.number = shown->inode;
    node->view = UNSHARD_NO_VIEW;
    node->hash = key->hash;
    memcpy(node->identity, key->identity, sizeof node->identity);
    if (key->kind != UNSHARD_NODE_FILE)
        node->inode.path = strdup(key->path);
    if (key->kind == UNSHARD_NODE_SYMLINK)
        node->inode.target = strdup(key->target);
    if ((key->kind == UNSHARD_NODE_FILE || node->inode.path) &&
        (key->kind != UNSHARD_NODE_SYMLINK || node->inode.target))
        return node;
    free_node(node);
    return NULL;
}

/* A directory whose path is a symlink's now and the like: who knows it has it by its id. */
static void take_over_path(struct inode_table *table, const struct key *key)
{
    if (key->kind == UNSHARD_NODE_FILE)
        return;
    for (struct node *node = *hash_bucket(table, key->hash); node; node = node->next_by_hash)
        if (node->hash == key->hash && node->inode.path && !strcmp(node->inode.path, key->path)) {
            leave_hash(table, node);
            return;
        }
}

static void add(struct inode_table *table, struct node *node, uint64_t id)
{
    if (table->count >= table->bucket_count)
        grow(table);
    node->inode.id = id;
    struct node **bucket = id_bucket(table, id);
    node->next_by_id = *bucket;
    *bucket = node;
    bucket = hash_bucket(table, node->hash);
    node->next_by_hash = *bucket;
    *bucket = node;
    node->entered = true;
    table->count++;
}

static const char *path_of(const struct node *node)
{
    return node->inode.kind == UNSHARD_NODE_FILE ? node->seen_path : node->inode.path;
}

/* Keeps it as it is now, in place of how it was kept before. Caller holds the mutex. */
static void keep_node(struct inode_table *table, struct node *node)
{
    struct kept_node *before = node->kept;
    struct kept_node_facts facts = {.id = node->inode.id,
                                    .number = node->inode.number,
                                    .size = node->size,
                                    .kind = node->inode.kind,
                                    .path = path_of(node),
                                    .target = node->inode.target,
                                    .buffered = node->buffered,
                                    .direct = node->direct,
                                    .attached = node->view != UNSHARD_NO_VIEW};
    if (!table->keep || node->inode.id == INODE_ROOT)
        return;
    memcpy(facts.identity, node->identity, sizeof facts.identity);
    node->kept = kept_node_new(table->keep, &facts);
    unshard_keep_remove(table->keep, before);
}

struct inode_table *inode_table_new(const struct unshard_checkpoint *root)
{
    struct inode_table *table = calloc(1, sizeof *table);
    if (!table)
        return NULL;
    pthread_mutex_init(&table->mutex, NULL);
    if (getrandom(&table->seed, sizeof table->seed, GRND_NONBLOCK) < 0)
        table->seed = (uint64_t)(uintptr_t)table;
    table->bucket_count = FIRST_BUCKETS;
    table->last_id = INODE_FIRST - 1;
    table->by_id = calloc(table->bucket_count, sizeof(struct node *));
    table->by_hash = calloc(table->bucket_count, sizeof(struct node *));
    struct unshard_place place = {.layout = (struct unshard_checkpoint *)(uintptr_t)root};
    struct key key = make_key(table, "", &place);
    struct node *node =
        table->by_id && table->by_hash ? new_node(&key, unshard_node(root, 0)) : NULL;
    if (!node) {
        inode_table_free(table);
        return NULL;
    }
    node->references = 1;
    add(table, node, INODE_ROOT);
    return table;
}

void inode_table_free(struct inode_table *table)
{
    if (!table)
        return;
    for (size_t i = 0; table->by_id && i < table->bucket_count; i++)
        for (struct node *node = table->by_id[i], *next; node; node = next) {
            next = node->next_by_id;
            free_node(node);
        }
    pthread_mutex_destroy(&table->mutex);
    free(table->by_id);
    free(table->by_hash);
    free(table->view_nodeid);
    free(table);
}

void inode_table_set_engine(struct inode_table *table, struct unshard_engine *engine)
{
    lock(table);
    table->engine = engine;
    unlock(table);
}

/* ---- the engine's side -------------------------------------------------------------------------
 */

/* Tells the engine what it does not know yet. Caller holds the mutex. */
static void tell(struct inode_table *table, struct node *node)
{
    bool known = node->inherited || (node->answered && node->lookups > 0);
    if (node->view == UNSHARD_NO_VIEW || node->told == known)
        return;
    node->told = known;
    unshard_engine_view_known(table->engine, node->view, known);
}

/* The status tells of the layouts that attached files were seen in last. Caller holds the mutex,
 * and the layout that it was told of till now. */
static void tell_of(struct inode_table *table, struct node *node, struct unshard_checkpoint *layout)
{
    struct unshard_checkpoint *before = node->told_of;
    if (before == layout)
        return;
    node->told_of = NULL;
    if (layout && unshard_engine_tell(table->engine, layout) == 0)
        node->told_of = layout;
    if (before)
        unshard_engine_tell_no_more(table->engine, before);
}

/* Caller holds the mutex. */
static int map_view(struct inode_table *table, uint32_t view, uint64_t id)
{
    if (view >= table->view_capacity) {
        size_t capacity = 2 * (size_t)view + 64;
        uint64_t *grown = reallocarray(table->view_nodeid, capacity, sizeof *grown);
        if (!grown)
            return -ENOMEM;
        memset(grown + table->view_capacity, 0, (capacity - table->view_capacity) * sizeof *grown);
        table->view_nodeid = grown;
        table->view_capacity = capacity;
    }
    table->view_nodeid[view] = id;
    return 0;
}

/* The node has the view from now on, unless it has it already: 1, the caller's is one too many. */
static int give_view(struct inode_table *table, struct node *node, uint32_t view)
{
    lock(table);
    int result = node->view == UNSHARD_NO_VIEW ? map_view(table, view, node->inode.id) : 1;
    if (result == 0) {
        node->view = view;
        node->was_attached = false;
        kept_node_attached(node->kept, true);
        tell(table, node);
        tell_of(table, node, node->place.layout);
        if (node->buffered > 0)
            unshard_engine_view_opened(table->engine, view, false, (int)node->buffered);
        if (node->direct > 0)
            unshard_engine_view_opened(table->engine, view, true, (int)node->direct);
    }
    unlock(table);
    return result;
}

int inode_table_attach(struct inode_table *table, struct inode *inode, struct unshard_error *error)
{
    struct node *node = node_of(inode);
    uint32_t view;
    lock(table);
    bool attached = node->view != UNSHARD_NO_VIEW;
    struct unshard_place place = node->place;
    if (!attached && place.layout)
        unshard_layout_hold(place.layout);
    unlock(table);
    if (attached)
        return 0;
    if (!place.layout)
        return unshard_error_set(error, "again", EAGAIN, "it is to be looked at again");
    int result = unshard_engine_attach(table->engine, place.layout,
                                       unshard_node(place.layout, place.node)->view, &view, error);
    if (result == 0) {
        result = give_view(table, node, view);
        if (result)
            unshard_engine_detach(table->engine, view);
        if (result < 0)
            unshard_error_set(error, "no-memory", -result, "out of memory");
    }
    unshard_layout_release(place.layout);
    return result < 0 ? result : 0;
}

uint32_t inode_table_view(struct inode_table *table, const struct inode *inode)
{
    lock(table);
    uint32_t view = node_of(inode)->view;
    unlock(table);
    return view;
}

bool inode_table_readable(struct inode_table *table, const struct inode *inode)
{
    lock(table);
    const struct unshard_place *place = &node_of(inode)->place;
    bool readable =
        place->layout &&
        unshard_view_readable(place->layout, unshard_node(place->layout, place->node)->view);
    unlock(table);
    return readable;
}

uint64_t inode_table_model(struct inode_table *table, const struct inode *inode)
{
    lock(table);
    uint64_t model = node_of(inode)->model;
    unlock(table);
    return model;
}

void inode_table_set_model(struct inode_table *table, struct inode *inode, uint64_t model)
{
    lock(table);
    node_of(inode)->model = model;
    unlock(table);
}

/* Caller holds the mutex. */
static uint64_t nodeid_of(const struct inode_table *table, uint32_t view)
{
    return view < table->view_capacity ? table->view_nodeid[view] : 0;
}

uint64_t inode_table_view_nodeid(struct inode_table *table, uint32_t view)
{
    lock(table);
    uint64_t id = nodeid_of(table, view);
    unlock(table);
    return id;
}

bool inode_table_view_known(struct inode_table *table, uint32_t view)
{
    lock(table);
    uint64_t id = nodeid_of(table, view);
    const struct node *node = id ? find_id(table, id) : NULL;
    bool known = node && node->told;
    unlock(table);
    return known;
}

/* ---- nodes -------------------------------------------------------------------------------------
 */

/* Takes a node that nobody needs out of the table. Caller holds the mutex; *out is then his to end.
 */
static void leave_if_unused(struct inode_table *table, struct node *node, struct node **out)
{
    if (node->lookups > 0 || node->references > 0 || node->inherited)
        return;
    if (node->view != UNSHARD_NO_VIEW)
        table->view_nodeid[node->view] = 0;
    if (node->entered)
        leave_hash(table, node);
    leave_id(table, node);
    table->count--;
    table->bytes -= node->size;
    *out = node;
}

/* Without the mutex. NULL is allowed. */
static void end_node(const struct inode_table *table, struct node *node)
{
    if (!node)
        return;
    if (node->view != UNSHARD_NO_VIEW)
        unshard_engine_detach(table->engine, node->view);
    if (node->told_of)
        unshard_engine_tell_no_more(table->engine, node->told_of);
    unshard_keep_remove(table->keep, node->kept);
    free_node(node);
}

struct inode *inode_table_get(struct inode_table *table, uint64_t id)
{
    lock(table);
    struct node *node = find_id(table, id);
    if (node) {
        node->references++;
        node->visits++;
    }
    unlock(table);
    return node ? &node->inode : NULL;
}

/* A file is here now. Caller holds the mutex; *old is his to release. */
static int see(struct inode_table *table, struct node *node, const char *path,
               const struct unshard_place *place, struct unshard_checkpoint **old)
{
    uint64_t size = unshard_node(place->layout, place->node)->size;
    bool moved = !node->seen_path || strcmp(node->seen_path, path) != 0;
    if (moved) {
        char *copy = strdup(path);
        if (!copy)
            return -ENOMEM;
        free(node->seen_path);
        node->seen_path = copy;
    }
    *old = node->place.layout;
    node->place =
        (struct unshard_place){.layout = unshard_layout_hold(place->layout), .node = place->node};
    node->seen_ms = table->now_ms;
    table->seen += node->place.layout != table->last_seen;
    table->last_seen = node->place.layout;
    if (node->view != UNSHARD_NO_VIEW)
        tell_of(table, node, place->layout);
    table->bytes += size - node->size;
    node->size = size;
    if (moved)
        keep_node(table, node);
    return 0;
}

/* The node of the key, or a new one. Caller holds the mutex. */
static struct node *find_or_make(struct inode_table *table, const struct key *key,
                                 const struct unshard_place *place)
{
    struct node *node = find_key(table, key);
    if (node)
        return node;
    node = new_node(key, unshard_node(place->layout, place->node));
    if (!node)
        return NULL;
    take_over_path(table, key);
    table->last_id++;
    if (table->kept_last_id)
        __atomic_store_n(table->kept_last_id, table->last_id, __ATOMIC_RELEASE);
    add(table, node, table->last_id);
    if (key->kind != UNSHARD_NODE_FILE)
        keep_node(table, node);
    return node;
}

struct inode *inode_table_enter(struct inode_table *table, const char *path,
                                const struct unshard_place *place)
{
    struct unshard_checkpoint *old = NULL;
    struct node *unused = NULL;
    struct key key = make_key(table, path, place);
    int result = 0;
    lock(table);
    struct node *node = find_or_make(table, &key, place);
    if (node && key.kind == UNSHARD_NODE_FILE)
        result = see(table, node, path, place, &old);
    if (node)
        node->visits++;
    if (node && result == 0)
        node->references++;
    else if (node)
        leave_if_unused(table, node, &unused);
    unlock(table);
    let_go(old);
    end_node(table, unused);
    return node && result == 0 ? &node->inode : NULL;
}

struct inode *inode_table_find(struct inode_table *table, const char *path,
                               const struct unshard_place *place)
{
    struct key key = make_key(table, path, place);
    lock(table);
    struct node *node = find_key(table, &key);
    if (node)
        node->references++;
    unlock(table);
    return node ? &node->inode : NULL;
}

/* Caller holds the mutex. */
static struct node *find_directory(const struct inode_table *table, const char *path, size_t length)
{
    uint64_t hash = XXH3_64bits_withSeed(path, length, table->seed + 1);
    struct node *node = *hash_bucket(table, hash);
    while (node &&
           (node->hash != hash || node->inode.kind != UNSHARD_NODE_DIRECTORY ||
            strlen(node->inode.path) != length || memcmp(node->inode.path, path, length) != 0))
        node = node->next_by_hash;
    return node;
}

uint64_t inode_table_directory(struct inode_table *table, const char *path)
{
    const char *slash = strrchr(path, '/');
    lock(table);
    const struct node *node = find_directory(table, path, slash ? (size_t)(slash - path) : 0);
    uint64_t id = node ? node->inode.id : 0;
    unlock(table);
    return id;
}

uint64_t inode_table_above(struct inode_table *table, const char *path)
{
    const char *slash = strrchr(path, '/');
    lock(table);
    const struct node *node = find_directory(table, path, slash ? (size_t)(slash - path) : 0);
    uint64_t number = node ? node->inode.number : 0;
    unlock(table);
    return number;
}

void inode_table_see_root(struct inode_table *table, struct unshard_checkpoint *layout)
{
    lock(table);
    struct node *root = find_id(table, INODE_ROOT);
    struct unshard_checkpoint *before = root->told_of;
    if (before)
        unshard_layout_hold(before);
    tell_of(table, root, layout);
    unlock(table);
    let_go(before);
}

bool inode_table_is_news(struct inode_table *table, const char *path,
                         const struct unshard_checkpoint *layout)
{
    lock(table);
    struct node *node = find_directory(table, path, strlen(path));
    bool news = node && node->seen_layout && node->seen_layout != layout;
    if (node)
        node->seen_layout = layout;
    unlock(table);
    return news;
}

static bool kernel_has(const struct node *node)
{
    return node->lookups > 0 || node->inherited;
}

/* The name of a node in a directory; NULL: it is not in there, or the kernel does not know it. */
static const char *name_in(const struct node *node, const char *directory)
{
    size_t length = strlen(directory);
    const char *path = path_of(node);
    if (!path || !*path || !kernel_has(node))
        return NULL;
    if (length > 0 && (strncmp(path, directory, length) != 0 || path[length++] != '/'))
        return NULL;
    return strchr(path + length, '/') ? NULL : path + length;
}

/* Whether what the kernel has of the name is what was there before. Caller holds the mutex. */
static bool is_superseded(const struct inode_table *table, const struct node *node,
                          const char *name, const struct unshard_place *place)
{
    const struct unshard_node *now = unshard_node_child(place->layout, place->node, name);
    if (!now)
        return true;
    struct unshard_place there = {.layout = place->layout,
                                  .node = unshard_node_number(place->layout, now)};
    struct key key = make_key(table, path_of(node), &there);
    const struct node *known = find_key(table, &key);
    return known != node && (!known || !kernel_has(known));
}

struct names {
    char **all;
    size_t count, capacity;
    bool failed;
};

static void add_name(struct names *names, const char *name)
{
    if (names->count == names->capacity) {
        size_t capacity = 2 * names->capacity + 16;
        char **grown = reallocarray(names->all, capacity, sizeof(char *));
        names->failed = names->failed || !grown;
        if (!grown)
            return;
        names->all = grown;
        names->capacity = capacity;
    }
    char *copy = strdup(name);
    names->failed = names->failed || !copy;
    if (copy)
        names->all[names->count++] = copy;
}

int inode_table_superseded(struct inode_table *table, const char *path,
                           const struct unshard_place *place, inode_name_found found, void *context)
{
    struct names names = {0};
    lock(table);
    const struct node *directory = find_directory(table, path, strlen(path));
    uint64_t id = directory ? directory->inode.id : 0;
    for (size_t i = 0; directory && i < table->bucket_count; i++)
        for (const struct node *node = table->by_id[i]; node; node = node->next_by_id) {
            const char *name = name_in(node, path);
            if (name && is_superseded(table, node, name, place))
                add_name(&names, name);
        }
    unlock(table);
    int result = names.failed ? -ENOMEM : 0;
    for (size_t i = 0; i < names.count; i++) {
        if (result == 0)
            result = found(context, id, names.all[i]);
        free(names.all[i]);
    }
    free(names.all);
    return result;
}

struct unshard_checkpoint *inode_table_root_layout(struct inode_table *table)
{
    lock(table);
    struct unshard_checkpoint *layout = find_id(table, INODE_ROOT)->told_of;
    if (layout)
        unshard_layout_hold(layout);
    unlock(table);
    return layout;
}

void inode_table_hold(struct inode_table *table, struct inode *inode)
{
    lock(table);
    node_of(inode)->references++;
    unlock(table);
}

void inode_table_put(struct inode_table *table, struct inode *inode)
{
    struct node *unused = NULL;
    if (!inode)
        return;
    lock(table);
    node_of(inode)->references--;
    leave_if_unused(table, node_of(inode), &unused);
    unlock(table);
    end_node(table, unused);
}

int inode_table_sight(struct inode_table *table, const struct inode *inode, struct inode_sight *out)
{
    const struct node *node = node_of(inode);
    lock(table);
    *out = (struct inode_sight){.path = strdup(node->seen_path), .place = node->place};
    if (out->path && out->place.layout)
        unshard_layout_hold(out->place.layout);
    unlock(table);
    return out->path ? 0 : -ENOMEM;
}

/* Nobody works with the node, nobody needs the layout for what he has, and it was not seen after
 * `before_ms`. */
static bool holds_for_nothing(const struct node *node, int64_t before_ms)
{
    return node->place.layout && node->view == UNSHARD_NO_VIEW && node->references == 0 &&
           node->seen_ms <= before_ms;
}

/* Takes at most MOST_AT_ONCE layouts out of nodes, in the order of the buckets from *bucket on.
 * Caller holds the mutex. */
static size_t take_layouts(struct inode_table *table, int64_t before_ms, size_t *bucket,
                           struct unshard_checkpoint **out)
{
    size_t count = 0;
    for (; *bucket < table->bucket_count && count < MOST_AT_ONCE; ++*bucket)
        for (struct node *node = table->by_id[*bucket]; node && count < MOST_AT_ONCE;
             node = node->next_by_id)
            if (holds_for_nothing(node, before_ms)) {
                out[count++] = node->place.layout;
                node->place = (struct unshard_place){0};
            }
    return count;
}

void inode_table_tidy(struct inode_table *table, int64_t now_ms)
{
    struct unshard_checkpoint *layouts[MOST_AT_ONCE];
    size_t bucket = 0, count, all = 0;
    lock(table);
    bool many = table->seen >= MOST_SEEN, due = many || now_ms - table->now_ms >= TIDY_MS;
    int64_t before_ms = many ? now_ms : now_ms - HELD_MS;
    if (due) {
        table->now_ms = now_ms;
        table->seen = 0;
    }
    unlock(table);
    do {
        lock(table);
        count = due ? take_layouts(table, before_ms, &bucket, layouts) : 0;
        unlock(table);
        for (size_t i = 0; i < count; i++)
            unshard_layout_release(layouts[i]);
        all += count;
    } while (count == MOST_AT_ONCE);
    if (all >= MOST_AT_ONCE)
        malloc_trim(0); /* they lay between others */
}

void inode_sight_release(struct inode_sight *sight)
{
    free(sight->path);
    unshard_layout_release(sight->place.layout);
}

void inode_table_count(struct inode_table *table, uint64_t *nodes, uint64_t *bytes)
{
    lock(table);
    *nodes = table->count;
    *bytes = table->bytes;
    unlock(table);
}

/* The ids of all files. NULL when memory is short. */
static uint64_t *all_files(struct inode_table *table, size_t *count)
{
    *count = 0;
    lock(table);
    uint64_t *ids = calloc(table->count + 1, sizeof *ids);
    for (size_t i = 0; ids && i < table->bucket_count; i++)
        for (const struct node *node = table->by_id[i]; node; node = node->next_by_id)
            if (node->inode.kind == UNSHARD_NODE_FILE)
                ids[(*count)++] = node->inode.id;
    unlock(table);
    return ids;
}

int inode_table_each_file(struct inode_table *table, inode_found found, void *context)
{
    size_t count;
    uint64_t *ids = all_files(table, &count);
    int result = ids ? 0 : -ENOMEM;
    for (size_t i = 0; result == 0 && i < count; i++) {
        struct inode *inode = inode_table_get(table, ids[i]);
        if (inode)
            result = found(context, inode);
        inode_table_put(table, inode);
    }
    free(ids);
    return result;
}

/* ---- what the kernel knows ---------------------------------------------------------------------
 */

void inode_table_lookup(struct inode_table *table, struct inode *inode)
{
    lock(table);
    node_of(inode)->lookups++;
    unlock(table);
}

void inode_table_replied(struct inode_table *table, struct inode *inode)
{
    lock(table);
    if (node_of(inode)->lookups > 0) {
        node_of(inode)->answered = true;
        tell(table, node_of(inode));
    }
    unlock(table);
}

/* Asks the kernel about an inherited node that nobody works with; it ends if that does not know it.
 * While the answer is under way somebody may come upon the node, and tell the kernel of it. */
static void ask(struct inode_table *table, uint64_t id)
{
    struct node *unused = NULL;
    lock(table);
    struct node *node = find_id(table, id);
    bool idle = node && node->inherited && node->lookups == 0 && node->references == 0;
    uint64_t visits = idle ? node->visits : 0;
    unlock(table);
    if (!idle || table->is_known(table->is_known_context, id))
        return;
    lock(table);
    node = find_id(table, id);
    if (node && node->inherited && node->lookups == 0 && node->visits == visits) {
        node->inherited = node->answered = false;
        tell(table, node);
        leave_if_unused(table, node, &unused);
    }
    unlock(table);
    end_node(table, unused);
}

void inode_table_forget(struct inode_table *table, uint64_t id, uint64_t count)
{
    struct node *unused = NULL;
    lock(table);
    struct node *node = find_id(table, id);
    bool inherited = node && node->inherited;
    if (node) {
        node->lookups -= count < node->lookups ? count : node->lookups;
        if (node->lookups == 0) {
            node->answered = false;
            tell(table, node);
        }
        leave_if_unused(table, node, &unused);
    }
    unlock(table);
    end_node(table, unused);
    if (inherited)
        ask(table, id);
}

void inode_table_opened(struct inode_table *table, struct inode *inode, bool direct, int change)
{
    struct node *node = node_of(inode), *unused = NULL;
    lock(table);
    unsigned *handles = direct ? &node->direct : &node->buffered;
    if (change > 0 || *handles > 0) {
        *handles += (unsigned)change;
        node->references += (unsigned)change;
        if (change < 0)
            kept_node_handles(node->kept, node->buffered, node->direct);
        if (node->view != UNSHARD_NO_VIEW)
            unshard_engine_view_opened(table->engine, node->view, direct, change);
        leave_if_unused(table, node, &unused);
    }
    unlock(table);
    end_node(table, unused);
}

bool inode_table_is_open(struct inode_table *table, const struct inode *inode)
{
    lock(table);
    bool open = node_of(inode)->buffered + node_of(inode)->direct > 0;
    unlock(table);
    return open;
}

void inode_table_keep_handles(struct inode_table *table, struct inode *inode)
{
    const struct node *node = node_of(inode);
    lock(table);
    kept_node_handles(node->kept, node->buffered, node->direct);
    unlock(table);
}

/* ---- what an earlier process has kept ----------------------------------------------------------
 */

static struct node *inherited_node(const struct inode_table *table,
                                   const struct kept_node_facts *facts)
{
    struct unshard_node shown = {.inode = facts->number};
    struct key key = {.kind = facts->kind, .path = facts->path, .target = facts->target};
    memcpy(key.identity, facts->identity, sizeof key.identity);
    hash_key(table, &key);
    struct node *node = new_node(&key, &shown);
    if (!node)
        return NULL;
    node->inherited = true;
    node->size = facts->size;
    node->buffered = facts->buffered;
    node->direct = facts->direct;
    node->references = facts->buffered + facts->direct;
    node->was_attached = facts->attached;
    if (facts->kind == UNSHARD_NODE_FILE && !(node->seen_path = strdup(facts->path))) {
        free_node(node);
        return NULL;
    }
    return node;
}

static int inherit(void *context, void *record, size_t bytes)
{
    struct inode_table *table = context;
    struct kept_node_facts facts;
    if (!kept_node_read(record, bytes, &facts) || facts.kind > UNSHARD_NODE_SYMLINK ||
        facts.id < INODE_FIRST || find_id(table, facts.id))
        return 0; /* a second one: it was about to take the place of the first */
    struct node *node = inherited_node(table, &facts);
    if (!node)
        return -ENOMEM;
    node->kept = record;
    add(table, node, facts.id);
    table->bytes += node->size;
    if (facts.id > table->last_id)
        table->last_id = facts.id;
    return 0;
}

int inode_table_inherit(struct inode_table *table, struct unshard_keep *keep, inode_is_known known,
                        void *context)
{
    table->keep = keep;
    table->is_known = known;
    table->is_known_context = context;
    if (!keep)
        return 0;
    lock(table);
    table->kept_last_id = kept_node_last_id(keep);
    int result = unshard_keep_each(keep, UNSHARD_KEEP_NODE, inherit, table);
    if (table->kept_last_id && *table->kept_last_id > table->last_id)
        table->last_id = *table->kept_last_id;
    unlock(table);
    return result;
}

/* The ids of inherited nodes. NULL when memory is short. */
static uint64_t *all_inherited(struct inode_table *table, size_t *count)
{
    *count = 0;
    lock(table);
    uint64_t *ids = calloc(table->count + 1, sizeof *ids);
    for (size_t i = 0; ids && i < table->bucket_count; i++)
        for (const struct node *node = table->by_id[i]; node; node = node->next_by_id)
            if (node->inherited)
                ids[(*count)++] = node->inode.id;
    unlock(table);
    return ids;
}

void inode_table_ask(struct inode_table *table)
{
    size_t count = 0;
    uint64_t *ids = all_inherited(table, &count);
    for (size_t i = 0; ids && i < count; i++)
        ask(table, ids[i]);
    free(ids);
}

/* With a reference, if it is to be attached again and is open, or is not. */
static struct inode *get_to_attach(struct inode_table *table, uint64_t id, bool open)
{
    lock(table);
    struct node *node = find_id(table, id);
    if (node && (!node->was_attached || (node->buffered + node->direct > 0) != open))
        node = NULL;
    if (node)
        node->references++;
    unlock(table);
    return node ? &node->inode : NULL;
}

int inode_table_each_inherited(struct inode_table *table, inode_found found, void *context)
{
    size_t count;
    uint64_t *ids = all_inherited(table, &count);
    int result = ids ? 0 : -ENOMEM;
    for (size_t i = 0; result == 0 && i < 2 * count; i++) {
        struct inode *inode = get_to_attach(table, ids[i < count ? i : i - count], i < count);
        if (inode)
            result = found(context, inode);
        inode_table_put(table, inode);
    }
    free(ids);
    return result;
}
