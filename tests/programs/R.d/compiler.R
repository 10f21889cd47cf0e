# Interpreted, and compiled to byte code: loops, closures, conditions, environments, text.
work <- function(n) {
    s <- 0; v <- numeric(n); l <- list()
    for (i in seq_len(n)) { v[i] <- (i * 7919) %% 1009; s <- s + if (i %% 3 == 0) sqrt(v[i]) else -v[i] / i; if (i %% 50 == 0) l[[length(l) + 1]] <- list(i = i, f = function(x) x + i) }
    fib <- function(k) if (k < 2) k else fib(k - 1) + fib(k - 2)
    t <- withCallingHandlers(tryCatch({ warning("w"); 1 }, warning = function(w) { stop_late <<- conditionMessage(w); 2 }, finally = { fin <<- TRUE }), message = function(m) invokeRestart("muffleMessage"))
    words <- vapply(seq_len(300), function(i) paste(rev(strsplit(format(i * 7919), "")[[1]]), collapse = ""), "")
    list(s, sum(v), fib(17), t, stop_late, fin, sum(vapply(l, function(e) e$f(1), 0)), sort(words)[1:20], table(nchar(words)), gsub("([0-9])([0-9])", "\\2\\1", words[1:9], perl = TRUE), regmatches(words, regexpr("9+[0-4]", words))[1:9],
        Reduce(`+`, 1:30, accumulate = TRUE), do.call(rbind, lapply(1:5, function(i) c(i, i^2))), outer(1:4, 1:4, Vectorize(function(a, b) a %/% b + a %% b)), bitwXor(12345L, 54321L), .Machine$integer.max + 1L, rev(utf8ToInt("\u00e9\u4e2d")), format(1e5 / 7, digits = 15), as.hexmode(255))
}
a <- suppressWarnings({ compiler::enableJIT(0); work(20000) })
b <- suppressWarnings({ compiler::enableJIT(3); compiler::cmpfun(work)(20000) })
print(identical(a, b)); print(a, digits = 15)
x <- lapply(1:200, function(i) rnorm(1000)); for (i in 1:30) { x[[i]] <- NULL; gc(FALSE) }; print(length(x))
e <- new.env(); for (i in 1:5000) assign(paste0("k", i), i, e); print(sum(unlist(mget(ls(e), e))))
print(serialize(list(1, "a", TRUE, NULL, c(a = 1L)), NULL, xdr = TRUE)); print(memCompress(charToRaw(strrep("abcdef", 500)), "gzip"))
setClass("P", representation(x = "numeric")); setGeneric("area", function(o, ...) standardGeneric("area")); setMethod("area", "P", function(o, ...) sum(o@x^2)); print(area(new("P", x = 1:9)))
A <- setRefClass("A", fields = list(n = "numeric"), methods = list(add = function(k) { n <<- n + k; invisible(.self) })); q <- A$new(n = 1); for (i in 1:200) q$add(i); print(q$n)
