-- The shop's own number of a product. A deleted product gives it back.
ALTER TABLE products
    ADD COLUMN sku VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NULL,
    ADD UNIQUE KEY products_sku (sku);
