/* SPDX-License-Identifier: MIT
 *
 * Linked into the program of the wheel alone, which is static: it runs with whatever C library a
 * machine has, or with none. A static program must not load shared objects, since these bring a C
 * library of their own, and must not believe the configuration of an OpenSSL that it does not have.
 * So libcrypto loads neither, and the functions that would are replaced (--wrap) by some that fail;
 * nothing of ours calls them. */
#include <netdb.h>
#include <openssl/crypto.h>
#include <stddef.h>

void *__wrap_dlopen(const char *path, int flags);
int __wrap_getaddrinfo(const char *node, const char *service, const struct addrinfo *hints,
                       struct addrinfo **result);
struct hostent *__wrap_gethostbyname(const char *name);

/* openssl.cnf may name providers to load, and properties that only those have. */
__attribute__((constructor)) static void ignore_configuration(void)
{
    OPENSSL_init_crypto(OPENSSL_INIT_NO_LOAD_CONFIG, NULL);
}

void *__wrap_dlopen(const char *path, int flags)
{
    (void)path;
    (void)flags;
    return NULL;
}

int __wrap_getaddrinfo(const char *node, const char *service, const struct addrinfo *hints,
                       struct addrinfo **result)
{
    (void)node;
    (void)service;
    (void)hints;
    (void)result;
    return EAI_FAIL;
}

struct hostent *__wrap_gethostbyname(const char *name)
{
    (void)name;
    return NULL;
}
