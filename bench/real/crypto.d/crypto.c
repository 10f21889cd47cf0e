// crypto rsa|aes|sha N: N signatures, or N MiB; prints a digest of what came out.
#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <openssl/param_build.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MIB = 1 << 20 };
static unsigned char data[MIB], out[MIB + 64];

static void need(int ok, const char *what) {
    if (ok <= 0) {
        fprintf(stderr, "crypto: %s failed\n", what);
        exit(1);
    }
}

static void digest(const unsigned char *p, size_t size) {
    unsigned char md[32];
    need(EVP_Digest(p, size, md, NULL, EVP_sha256(), NULL), "digest");
    for (int i = 0; i < 32; i++)
        printf("%02x", md[i]);
    printf("\n");
}

// The next prime after a number that the name gives: the same key each time.
static BIGNUM *prime(const char *name, BN_CTX *ctx) {
    unsigned char bytes[128];
    for (int i = 0; i < 4; i++) {
        char text[32];
        snprintf(text, sizeof(text), "%s %d", name, i);
        need(EVP_Digest(text, strlen(text), bytes + 32 * i, NULL, EVP_sha256(), NULL),
             "digest");
    }
    bytes[0] |= 0xc0;
    bytes[127] |= 1;
    BIGNUM *p = BN_bin2bn(bytes, sizeof(bytes), NULL);
    while (BN_check_prime(p, ctx, NULL) != 1)
        BN_add_word(p, 2);
    return p;
}

static EVP_PKEY *key(void) {
    BN_CTX *ctx = BN_CTX_new();
    BIGNUM *p = prime("p", ctx), *q = prime("q", ctx), *e = BN_new(), *n = BN_new(),
           *d = BN_new();
    BIGNUM *p1 = BN_dup(p), *q1 = BN_dup(q), *phi = BN_new(), *dp = BN_new(),
           *dq = BN_new();
    BN_set_word(e, 65537);
    BN_sub_word(p1, 1);
    BN_sub_word(q1, 1);
    BN_mul(n, p, q, ctx);
    BN_mul(phi, p1, q1, ctx);
    BN_mod_inverse(d, e, phi, ctx);
    BN_mod(dp, d, p1, ctx);
    BN_mod(dq, d, q1, ctx);
    BIGNUM *inverse = BN_mod_inverse(NULL, q, p, ctx);
    struct {
        const char *name;
        BIGNUM *value;
    } part[] = {
        {OSSL_PKEY_PARAM_RSA_N, n},          {OSSL_PKEY_PARAM_RSA_E, e},
        {OSSL_PKEY_PARAM_RSA_D, d},          {OSSL_PKEY_PARAM_RSA_FACTOR1, p},
        {OSSL_PKEY_PARAM_RSA_FACTOR2, q},    {OSSL_PKEY_PARAM_RSA_EXPONENT1, dp},
        {OSSL_PKEY_PARAM_RSA_EXPONENT2, dq}, {OSSL_PKEY_PARAM_RSA_COEFFICIENT1, inverse}};
    OSSL_PARAM_BLD *build = OSSL_PARAM_BLD_new();
    for (size_t i = 0; i < sizeof(part) / sizeof(part[0]); i++)
        need(OSSL_PARAM_BLD_push_BN(build, part[i].name, part[i].value), "push");
    EVP_PKEY_CTX *from = EVP_PKEY_CTX_new_from_name(NULL, "RSA", NULL);
    EVP_PKEY *pkey = NULL;
    need(EVP_PKEY_fromdata_init(from), "fromdata_init");
    need(EVP_PKEY_fromdata(from, &pkey, EVP_PKEY_KEYPAIR, OSSL_PARAM_BLD_to_param(build)),
         "fromdata");
    return pkey;
}

static void rsa(int count) {
    EVP_PKEY *pkey = key();
    unsigned char sig[256];
    size_t size;
    for (int i = 0; i < count; i++) {
        EVP_MD_CTX *md = EVP_MD_CTX_new();
        memcpy(data, &i, sizeof(i));
        size = sizeof(sig);
        need(EVP_DigestSignInit(md, NULL, EVP_sha256(), NULL, pkey), "sign");
        need(EVP_DigestSign(md, sig, &size, data, 64), "sign");
        EVP_MD_CTX_reset(md);
        need(EVP_DigestVerifyInit(md, NULL, EVP_sha256(), NULL, pkey), "verify");
        need(EVP_DigestVerify(md, sig, size, data, 64), "verify");
        EVP_MD_CTX_free(md);
        memcpy(data + 64, sig, sizeof(sig));
    }
    digest(sig, size);
}

static void aes(int count) {
    static const unsigned char k[32] = "a key of 32 bytes", iv[12] = "nonce";
    EVP_CIPHER_CTX *c = EVP_CIPHER_CTX_new();
    unsigned char tag[16];
    int n;
    need(EVP_EncryptInit_ex(c, EVP_aes_256_gcm(), NULL, k, iv), "init");
    for (int i = 0; i < count; i++)
        need(EVP_EncryptUpdate(c, out, &n, data, MIB), "update");
    need(EVP_EncryptFinal_ex(c, out + n, &n), "final");
    need(EVP_CIPHER_CTX_ctrl(c, EVP_CTRL_GCM_GET_TAG, 16, tag), "tag");
    digest(tag, sizeof(tag));
    digest(out, MIB);
}

static void sha(int count) {
    EVP_MD_CTX *md = EVP_MD_CTX_new();
    unsigned char sum[32];
    need(EVP_DigestInit_ex(md, EVP_sha256(), NULL), "init");
    for (int i = 0; i < count; i++)
        need(EVP_DigestUpdate(md, data, MIB), "update");
    need(EVP_DigestFinal_ex(md, sum, NULL), "final");
    digest(sum, sizeof(sum));
}

int main(int argc, char **argv) {
    if (argc != 3)
        return 2;
    for (int i = 0; i < MIB; i++)
        data[i] = i * 7 + (i >> 8);
    int count = atoi(argv[2]);
    if (!strcmp(argv[1], "rsa"))
        rsa(count);
    else if (!strcmp(argv[1], "aes"))
        aes(count);
    else
        sha(count);
    return 0;
}
