def test_signs(mapped):
    texts = ["他说：“你好，世界……”（全部）。", "a — b – c．", "plain, text.", "【１】～", ""]
    expected = ['他说:"你好,世界......"(全部).', "a  -  b - c. ", "plain, text.", '["]~', ""]
    assert mapped("punctuation_normalization_mapper", texts) == expected
